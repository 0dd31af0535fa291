package config

import (
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
	"LISTENER_URL", "ALERT_WEBHOOK", "ALERT_EMAIL",
}

// foreign are variables with the prefix that belong to the project's own tests,
// and to the flags of those commands that ask a running instance.
var foreign = []string{Prefix + "REQUIRE", Prefix + "SERVER", Prefix + "CA_FILE"}

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
		warnings = append(warnings, unknown(name+": no such setting, ignored", name, Prefix, known))
	}
	slices.Sort(warnings)
	return warnings
}

// Nearest returns the word that takes the fewest edits to become name, or "" if
// none is near.
func Nearest(name string, words []string) string { return nearest(name, "", words) }

// maxName is the length up to which a name is looked at: work is quadratic.
const maxName = 100

// unknown returns a message with the known name that the user may have meant,
// if one is near. The known names have the prefix, and the name may have it.
func unknown(message, name, prefix string, known []string) string {
	if near := nearest(strings.TrimPrefix(name, prefix), prefix, known); near != "" {
		message += "; did you mean " + near + "?"
	}
	return message
}

// nearest returns the word that takes the fewest edits behind its prefix, up to
// a third of the name and 10, or "". The name is given without the prefix.
func nearest(name, prefix string, words []string) string {
	best, least := "", min(len(name)/3, 10)+1
	if len(name) > maxName {
		return ""
	}
	for _, word := range words {
		if d := distance(name, strings.TrimPrefix(word, prefix)); d < least {
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
