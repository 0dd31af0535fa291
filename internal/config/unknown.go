package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// serviceLink matches the variables that orchestrators make for a service or a
// link whose name begins with "portwatcher".
// Sources: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables,
// https://docs.docker.com/engine/network/links/#environment-variables.
var serviceLink = regexp.MustCompile(`^` + Prefix + `(\w+_)?(` +
	`SERVICE_HOST|SERVICE_PORT(_\w+)?|` +
	`PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?)?|` +
	`NAME|ENV_\w+)$`)

// notYet are variables of the shell tool that this version does not act on.
// Whoever sets one must learn that it has no effect.
var notYet = []string{
	"SNAPSHOT_PATH", "CONFIG_FILE", "LISTENER_URL", "ALERT_WEBHOOK", "ALERT_EMAIL",
}

// foreign are variables with the prefix that belong to the project's own tests.
var foreign = []string{Prefix + "REQUIRE"}

// unknownVariables returns a warning for each variable with the prefix that is
// no setting, in order.
func unknownVariables(variables map[string]string) []string {
	known := make([]string, 0, len(table))
	for _, s := range table {
		known = append(known, s.variable())
	}
	var warnings []string
	for name, value := range variables {
		if slices.Contains(notYet, name) && value != "" {
			warnings = append(warnings, name+": not supported by this version, ignored")
		}
		if !strings.HasPrefix(name, Prefix) || slices.Contains(foreign, name) || slices.Contains(known, name) || serviceLink.MatchString(name) {
			continue
		}
		warning := fmt.Sprintf("%s: no such setting, ignored", name)
		if near := nearest(name, known); near != "" {
			warning += "; did you mean " + near + "?"
		}
		warnings = append(warnings, warning)
	}
	slices.Sort(warnings)
	return warnings
}

// nearest returns the word that takes the fewest edits, up to a third of the
// name without its prefix, or "".
func nearest(name string, words []string) string {
	best, least := "", (len(name)-len(Prefix))/3+1
	for _, word := range words {
		if d := distance(name, word); d < least {
			best, least = word, d
		}
	}
	return best
}

// distance returns the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
