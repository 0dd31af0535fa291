package main

import (
	"strings"
	"testing"
	"time"
)

// A balance finds what does not add up, and nothing else.
func TestBalance(t *testing.T) {
	const a, b = `,"container":{"id":"aa","name":"a"}`, `,"container":{"id":"bb","name":"b"}`
	event := func(kind, container, more string) string {
		return `{"id":1,"time":"x","type":"` + kind + `"` + container + `,"port":80,"transient":false` + more + `}`
	}
	pair := []string{event("opened", a, ""), event("closed", a, "")}
	for name, test := range map[string]struct {
		more        []string // beside the pair
		happened    happened // in the first container; in the second nothing
		unaccounted int
		exact       bool
		problem     string
	}{
		"one by one":             {nil, happened{1, 1}, 0, true, ""},
		"one is missing":         {nil, happened{1, 2}, 1, false, ""},
		"one too many":           {nil, happened{1, 0}, -1, false, "more than"},
		"a change is neither":    {[]string{event("changed", a, "")}, happened{1, 1}, 0, true, ""},
		"a burst":                {[]string{event("burst", a, `,"opened":5,"closed":4,"first":"x"`)}, happened{6, 5}, 0, true, ""},
		"its own gap":            {[]string{event("gap", a, `,"reason":"lost","lost":3`)}, happened{3, 2}, 0, true, ""},
		"a gap of too much":      {[]string{event("gap", a, `,"reason":"lost","lost":3`)}, happened{2, 2}, -1, false, "only 2 are missing"},
		"a gap of anywhere":      {[]string{event("gap", "", `,"reason":"lost","lost":9`)}, happened{3, 2}, 0, true, ""},
		"a gap without a number": {[]string{event("gap", a, `,"reason":"lost"`)}, happened{3, 2}, 3, false, ""},
		"the journal's gap":      {[]string{event("gap", a, `,"reason":"openings and closings are missing from the journal, which is slow","lost":3`)}, happened{3, 2}, 3, false, ""},
		"open in the end":        {[]string{event("opened", a, "")}, happened{2, 1}, 0, false, "although all is closed"},
		"another's":              {[]string{event("opened", b, ""), event("closed", b, "")}, happened{1, 1}, -2, false, "more than"},
	} {
		seen := newAccounts()
		for _, line := range append(pair, test.more...) {
			seen.add([]byte(line), time.Time{})
		}
		got := seen.balance(map[string]happened{"aa": test.happened, "bb": {}})
		problems := strings.Join(got.problems, "\n")
		if got.unaccounted() != test.unaccounted || got.exact() != test.exact || (problems == "") != (test.problem == "") || !strings.Contains(problems, test.problem) {
			t.Errorf("%s: unaccounted %d, exact %v, problems %q; want %d, %v, %q", name, got.unaccounted(), got.exact(), problems, test.unaccounted, test.exact, test.problem)
		}
	}
}
