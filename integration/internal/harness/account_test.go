package harness

import (
	"strings"
	"testing"
	"time"
)

// began is when the events of these tests begin.
var began = time.Now().UTC().Add(-time.Minute)

// lineAt is a line of [event], at a second of a minute and in a container that is 64 of
// this digit.
func lineAt(id, second int, kind, container string, replacements ...string) string {
	line := event(id, kind, strings.Repeat("8f", 32), strings.Repeat(container, 64))
	head, rest, _ := strings.Cut(line, `,"time":"`)
	_, rest, _ = strings.Cut(rest, `"`)
	at := Stamp(began.Add(time.Duration(second) * time.Second))
	return strings.NewReplacer(replacements...).Replace(head + `,"time":"` + at + `"` + rest)
}

// The judge finds what does not add up, and nothing else.
func TestLedger(t *testing.T) {
	opened := func(id, second int, more ...string) string { return lineAt(id, second, "opened", "a", more...) }
	closed := func(id, second int, more ...string) string { return lineAt(id, second, "closed", "a", more...) }
	burst := func(opened, closed string) string {
		return lineAt(1, 9, "burst", "a", `"transient":false`, `"transient":false,"opened":`+opened+`,"closed":`+closed+
			`,"first":"2026-11-22T18:36:39Z","last":"2026-11-22T18:36:40Z","port_count":1`)
	}
	gap := func(lost, reason string) string {
		return `{"id":1,"time":"` + Stamp(began) + `","type":"gap","reason":"` + reason + `"` + lost + `}`
	}
	ofItsOwn := func(line string) string {
		return strings.Replace(line, `"type":"gap"`, `"type":"gap","container":{"id":"`+strings.Repeat("a", 64)+`","name":"web"}`, 1)
	}
	pair := []string{opened(1, 1), closed(2, 2)}
	for name, test := range map[string]struct {
		more []string // after the pair
		want string   // in the problems; "" is none
		of   Happened
	}{
		"one by one":             {nil, "", Happened{1, 1}},
		"one is missing":         {nil, "1 openings and closings are neither", Happened{1, 2}},
		"one too many":           {nil, "more than happened", Happened{1, 0}},
		"a burst":                {[]string{burst("5", "4")}, "", Happened{6, 5}},
		"a burst too small":      {[]string{burst("5", "4")}, "2 openings and closings are neither", Happened{7, 6}},
		"a burst too big":        {[]string{burst("5", "4")}, "more than happened", Happened{5, 5}},
		"the container's gap":    {[]string{ofItsOwn(gap(`,"lost":3`, "lost"))}, "", Happened{2, 3}},
		"a gap too big":          {[]string{ofItsOwn(gap(`,"lost":4`, "lost"))}, "only 3 are missing", Happened{2, 3}},
		"a gap too small":        {[]string{gap(`,"lost":2`, "lost")}, "1 openings and closings are neither", Happened{2, 3}},
		"a gap of all":           {[]string{gap(`,"lost":5`, "lost")}, "", Happened{2, 3}},
		"a gap without a number": {[]string{gap("", "an overrun")}, "", Happened{9, 9}},
		"too many beside a gap":  {[]string{gap("", "an overrun")}, "more than happened", Happened{0, 1}},
		"the journal's gap":      {[]string{gap(`,"lost":2`, otherConsumer)}, "", Happened{1, 1}},
		"open in the end":        {[]string{opened(3, 3)}, "open in the end", Happened{2, 1}},
		"in the wrong order":     {[]string{opened(3, 4), closed(4, 3)}, "earlier than those before them, by [1s]", Happened{2, 2}},
		"at the edge of a burst": {[]string{opened(3, 4), closed(4, 3), burst("5", "5")}, "", Happened{7, 7}},
	} {
		ledger := NewLedger()
		for _, line := range append(pair, test.more...) {
			ledger.Take(line)
		}
		problems := strings.Join(ledger.Judge(map[string]Happened{strings.Repeat("a", 64): test.of}, true), "\n")
		if (problems == "") != (test.want == "") || !strings.Contains(problems, test.want) || len(ledger.Problems) > 0 {
			t.Errorf("%s: %q and %q; want %q", name, problems, ledger.Problems, test.want)
		}
	}
	// Among notifications that were lost may be those of others.
	for lost, want := range map[string]int{"35": 0, "3": 0, "2": 1, "36": 2} {
		ledger := NewLedger()
		ledger.Take(opened(1, 2))
		ledger.Take(closed(2, 1))
		ledger.Take(ofItsOwn(gap(`,"lost":`+lost, "lost")))
		if problems := ledger.Judge(map[string]Happened{strings.Repeat("a", 64): {2, 3}}, false); len(problems) != want {
			t.Errorf("%s lost: %q, want %d problems", lost, problems, want)
		}
	}
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"opened twice":        {[]string{opened(1, 1), opened(2, 2)}, "opens what is open"},
		"closed twice":        {[]string{opened(1, 1), closed(2, 2), closed(3, 3)}, "closes what is not"},
		"no JSON":             {[]string{"New port opened"}, "not a JSON object"},
		"a time that is none": {[]string{opened(1, 1), strings.Replace(opened(2, 2, `"port":80`, `"port":80`), `"time":"`, `"time":"x`, 1)}, "cannot parse"},
	} {
		ledger := NewLedger()
		for _, line := range test.lines {
			ledger.Take(line)
		}
		if problems := strings.Join(ledger.Problems, "\n"); !strings.Contains(problems, test.want) {
			t.Errorf("%s: %q; want %q", name, problems, test.want)
		}
	}
	// Two ports, and those of two containers, do not meet.
	ledger := NewLedger()
	for _, line := range []string{opened(1, 1), opened(2, 1, `"port":80`, `"port":81`), lineAt(3, 1, "opened", "b"), closed(4, 2), opened(5, 3)} {
		if e := ledger.Take(line); e.Line != line || e.ID == 0 || e.Time.Before(began) {
			t.Errorf("%s: read as %+v", line, e)
		}
	}
	if a := ledger.Account(strings.Repeat("a", 64)); a.Events != (Happened{3, 1}) || len(a.Open) != 2 || len(ledger.Problems) > 0 {
		t.Errorf("%+v, %q", a, ledger.Problems)
	}
}
