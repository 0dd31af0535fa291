package config

import (
	"bytes"
	"errors"
	"regexp"
	"sort"
	"strings"
)

// yamlPrefix is what the YAML library puts before its reason. Its lines are not
// kept: they are those of the construct around the mistake, or one too low.
var yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// broken returns the library's reason in one line.
func broken(err error) error {
	reason := yamlPrefix.ReplaceAllString(err.Error(), "")
	if strings.HasPrefix(reason, "unknown anchor") {
		reason += "; put text that begins with * in quotes"
	}
	return errors.New("it is no YAML: " + strings.Join(strings.Fields(reason), " "))
}

// searchBudget is how many bytes are parsed to find a line: enough for any file
// that is written by hand. In a larger one the line may be too early.
const searchBudget = 2 << 20

// brokenLine returns the line, from 1, at which YAML that cannot be parsed goes
// wrong: the first one without which all before it can be parsed. Of a quotation
// or list that is never closed this is the line where it begins.
func brokenLine(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	ends := make([]int, len(lines)+1)
	for i, line := range lines {
		ends[i+1] = ends[i] + len(line)
	}
	budget := searchBudget
	parses := func(count int) bool {
		budget -= ends[count]
		_, _, err := documents(content[:ends[count]])
		return err == nil
	}
	for good := 0; ; {
		good += sort.Search(len(lines)-good, func(i int) bool { return !parses(good + i + 1) })
		// The search may have cut a construct of several lines: with its end it
		// is good, and the mistake is behind it.
		next := good + 2
		for next <= len(lines) && budget > 0 && !parses(next) {
			next++
		}
		if next > len(lines) || budget <= 0 {
			return min(good+1, len(lines))
		}
		good = next
	}
}
