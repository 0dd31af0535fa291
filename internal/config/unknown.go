package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// serviceLink matches the variables that orchestrators set for a service or a link
// whose name begins with "portwatcher".
// Sources: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables,
// https://docs.docker.com/engine/network/links/#environment-variables.
var serviceLink = regexp.MustCompile(`^` + prefix + `(\w+_)?(` +
	`SERVICE_HOST|SERVICE_PORT(_\w+)?|` +
	`PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?)?|` +
	`NAME|ENV_\w+)$`)

// unsupported are variables of the shell tool that have no effect in this version.
var unsupported = []string{"LISTENER_URL"}

// foreign are variables with the prefix that belong to the project's tests and to the
// flags of the commands that query a running instance.
var foreign = []string{prefix + "REQUIRE", prefix + "SERVER", prefix + "CA_FILE"}

// unknownVariables returns a warning for each variable with the prefix that is no
// setting, and for each that is not supported, in order.
func unknownVariables(variables map[string]string) []string {
	var warnings []string
	for name, value := range variables {
		if slices.Contains(unsupported, name) && value != "" {
			warnings = append(warnings, name+": not supported by this version, ignored")
		}
		rest, found := strings.CutPrefix(name, prefix)
		if !found || slices.ContainsFunc(table, func(s *setting) bool { return s.variable() == name }) ||
			slices.Contains(foreign, name) || serviceLink.MatchString(name) {
			continue
		}
		warning := name + ": no such setting, ignored"
		if near := nearestSetting(rest); near != nil {
			warning += "; did you mean " + near.variable() + "?"
		}
		warnings = append(warnings, warning)
	}
	slices.Sort(warnings)
	return warnings
}

// nearestSetting returns the setting whose name is nearest to a key of the file or to
// the rest of a variable's name, or nil.
func nearestSetting(text string) *setting {
	near := Nearest(strings.ToLower(strings.ReplaceAll(text, "_", "-")), Names())
	if near == "" {
		return nil
	}
	return lookup(near)
}

// maxName is the length up to which a name is compared: the time is quadratic.
const maxName = 100

// Nearest returns the word with the smallest Levenshtein distance from name, up to a
// third of the name's length and 10, or "" if there is none.
func Nearest(name string, words []string) string {
	best, least := "", min(len(name)/3, 10)+1
	if len(name) > maxName {
		return ""
	}
	for _, word := range words {
		if d := levenshtein.Distance(name, word, nil); d < least {
			best, least = word, d
		}
	}
	return best
}
