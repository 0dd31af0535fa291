package truth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// began is when the events of these tests begin.
var began = time.Now().UTC().Add(-time.Minute)

// line returns an event of a container whose id is 64 of a digit, so many seconds after
// began, as portwatcher prints it, with some of its text replaced.
func line(id, second int, kind, container string, replacements ...string) string {
	text := fmt.Sprintf(`{"id":%d,"time":%q,"type":%q,"host":"node1","container":{"id":%q,"name":"web"},`+
		`"protocol":"tcp","address":"0.0.0.0","port":80,"exposure":"network","outside":false,"source":"sock_diag","transient":false`,
		id, began.Add(time.Duration(second)*time.Second).Format(time.RFC3339Nano), kind, strings.Repeat(container, 64))
	if kind == "changed" {
		text += `,"change":"process"`
	}
	if kind == "closed" {
		text += `,"opened_at":"2026-11-22T18:36:28.123456789Z","open_seconds":1.5`
	}
	return strings.NewReplacer(replacements...).Replace(text + "}")
}

func burst(id int, counts string) string {
	return line(id, 9, "burst", "a", `"transient":false`, `"transient":false,`+counts+`,"first":"2026-11-22T18:36:39Z","last":"2026-11-22T18:36:40Z","port_count":1`)
}

func gap(id int, more string) string {
	return fmt.Sprintf(`{"id":%d,"time":%q,"type":"gap"%s}`, id, began.Format(time.RFC3339Nano), more)
}

// Take finds what breaks the contract, and nothing else.
func TestLedgerFindsBrokenEvents(t *testing.T) {
	opened := func(id int, more ...string) string { return line(id, id, "opened", "a", more...) }
	closed := func(id int, more ...string) string { return line(id, id, "closed", "a", more...) }
	reached := func(id int, now, before string) string {
		return line(id, id, "changed", "a", `"exposure":"network"`, now, `"change":"process"`, `"change":"exposure","previous_exposure":`+before)
	}
	counts := `"opened":5,"closed":4`
	for name, test := range map[string]struct {
		lines []string
		want  string // "" is no problem
	}{
		"none":                     {[]string{opened(7), line(8, 8, "changed", "a"), closed(9), opened(10)}, ""},
		"two ports":                {[]string{opened(1), opened(2, `"port":80`, `"port":81`)}, ""},
		"two containers":           {[]string{opened(1), line(2, 2, "opened", "b")}, ""},
		"a gap":                    {[]string{gap(1, `,"reason":"lost"`)}, ""},
		"gap for no reason":        {[]string{gap(1, ``)}, "without a reason"},
		"opened twice":             {[]string{opened(1), opened(2)}, "open already"},
		"closed twice":             {[]string{opened(1), closed(2), closed(3)}, "not open"},
		"an id left out":           {[]string{opened(1), closed(3)}, "one more than 1"},
		"an id again":              {[]string{opened(1), closed(1)}, "one more than 1"},
		"no JSON":                  {[]string{"New port opened"}, "not a JSON event"},
		"no time":                  {[]string{opened(1), opened(2, `"time":"`, `"time":"x`)}, "cannot parse"},
		"no container":             {[]string{opened(1, "container", "other")}, "no container"},
		"a change of the exposure": {[]string{opened(7), reached(8, `"exposure":"loopback"`, `"network"`), closed(9)}, ""},
		"from another exposure":    {[]string{opened(7), reached(8, `"exposure":"loopback"`, `"host"`)}, "its exposure was network"},
		"a change of nothing":      {[]string{opened(7), reached(8, `"exposure":"network"`, `"network"`)}, "changes nothing"},
		"what has changed?":        {[]string{opened(7), line(8, 8, "changed", "a", `,"change":"process"`, "")}, "without change"},
		"no outside":               {[]string{opened(1, `,"outside":false`, "")}, "outside"},
		"no exposure":              {[]string{opened(1, `"network"`, `""`)}, "exposure"},
		"no source":                {[]string{opened(1, `"sock_diag"`, `""`)}, "source"},
		"no transient":             {[]string{opened(1, `"transient"`, `"other"`)}, "transient"},
		"unknown type":             {[]string{line(1, 1, "vanished", "a")}, "unknown type"},
		"local time":               {[]string{opened(1, `Z",`, `+01:00",`)}, "its time"},
		"transient":                {[]string{opened(1, `":false`, `":true`), closed(2, `":false`, `":true`, "opened_at", "at", "open_seconds", "seconds")}, ""},
		"closed, no span":          {[]string{opened(1), closed(2, "open_seconds", "seconds")}, "open_seconds"},
		"burst":                    {[]string{burst(1, counts)}, ""},
		"burst of nothing":         {[]string{burst(1, `"opened":0,"closed":0`)}, "counts nothing"},
		"burst, backwards":         {[]string{strings.Replace(burst(1, counts), ":39Z", ":41Z", 1)}, "their order is wrong"},
		"burst, ports":             {[]string{strings.Replace(burst(1, counts), `"port_count"`, `"ports":[81,80],"port_count"`, 1)}, "not in order"},
		"burst, port_count":        {[]string{strings.Replace(burst(1, counts), `"port_count":1`, `"port_count":2`, 1)}, "of one port and of several"},
	} {
		ledger := NewLedger()
		for _, line := range test.lines {
			ledger.Take(line)
		}
		if got := fmt.Sprint(ledger.Problems); len(ledger.Problems) > 1 || (test.want == "") != (got == "[]") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %q", name, got, test.want)
		}
	}
}

// Judge finds what does not add up, and nothing else.
func TestJudge(t *testing.T) {
	const a = `,"container":{"id":"` + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + `","name":"web"}`
	lost := func(n int, more string) string { return gap(3, fmt.Sprintf(`,"reason":"lost","lost":%d%s`, n, more)) }
	const eBPF, netlink, proc = Exact, Complete, Sampled
	for name, test := range map[string]struct {
		more      string // an event after the opening and the closing of a port
		happened  Count
		precision Precision
		want      string // in the problems; "" is none
	}{
		"one by one":             {"", Count{1, 1}, eBPF, ""},
		"one is missing":         {"", Count{1, 2}, eBPF, "unaccounted: 1 openings"},
		"one is not sampled":     {"", Count{1, 2}, proc, ""},
		"one too many":           {"", Count{1, 0}, proc, "more than the 1 openings"},
		"a burst":                {burst(3, `"opened":5,"closed":4`), Count{6, 5}, eBPF, ""},
		"a burst too small":      {burst(3, `"opened":5,"closed":4`), Count{7, 6}, eBPF, "unaccounted: 2 openings"},
		"a burst too big":        {burst(3, `"opened":5,"closed":4`), Count{5, 5}, eBPF, "more than"},
		"the container's gap":    {lost(3, a), Count{2, 3}, eBPF, ""},
		"a gap too big":          {lost(4, a), Count{2, 3}, eBPF, "only 3 are missing"},
		"a gap of others too":    {lost(35, a), Count{2, 3}, netlink, ""},
		"a gap much too big":     {lost(36, a), Count{2, 3}, netlink, "only 3 are missing"},
		"a gap too small":        {lost(2, ""), Count{2, 3}, eBPF, "unaccounted: 1 openings"},
		"a gap of all":           {lost(5, ""), Count{2, 3}, eBPF, ""},
		"a gap without a number": {gap(3, `,"reason":"an overrun"`), Count{9, 9}, netlink, ""},
		"it excuses not eBPF":    {gap(3, `,"reason":"an overrun"`), Count{9, 9}, eBPF, "unaccounted: 16"},
		"too many beside a gap":  {gap(3, `,"reason":"an overrun"`), Count{0, 1}, netlink, "more than"},
		"the journal's gap":      {gap(3, `,"reason":"missing from the journal","lost":2`), Count{1, 1}, eBPF, ""},
		"open in the end":        {line(3, 3, "opened", "a"), Count{2, 1}, eBPF, "left open"},
		"in the wrong order":     {line(3, 1, "opened", "a"), Count{2, 2}, eBPF, "earlier than those before them, by [1s]"},
	} {
		ledger := NewLedger()
		for _, line := range []string{line(1, 1, "opened", "a"), line(2, 2, "closed", "a"), test.more} {
			if line != "" {
				ledger.Take(line)
			}
		}
		judgement := ledger.Judge(map[string]Count{strings.Repeat("a", 64): test.happened}, test.precision)
		if got := fmt.Sprint(judgement.Problems); (got == "[]") != (test.want == "") || !strings.Contains(got, test.want) || len(ledger.Problems) > 0 {
			t.Errorf("%s: %s and %v; want %q", name, got, ledger.Problems, test.want)
		}
	}
}

// happened is a fact that took a millisecond, so many milliseconds after began.
func happened(action Action, port uint16, after int) Fact {
	at := began.Add(time.Duration(after) * time.Millisecond)
	return Fact{Action: action, Time: at, After: at.Add(time.Millisecond), Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: port, PID: 7}
}

// reported is the event that reports a fact as eBPF does.
func reported(id uint64, f Fact) Event {
	e := model.Event{ID: id, Time: f.Time.Add(time.Microsecond), Type: model.Type(f.Action)}
	e.Container = &model.ContainerRef{ID: "1", Name: "demo"}
	e.Protocol, e.Address, e.Port = f.Protocol, f.Address, f.Port
	e.Processes = []model.Process{{PID: 4000 + f.PID, ContainerPID: f.PID, Name: workloadName}}
	e.Exposure, e.Source = model.Network, model.SourceEBPF
	return Event{Event: e}
}

// Compare finds what is wrong in one of the events of two ports, of which the second
// opens before the first closes, and nothing else.
func TestCompareFinds(t *testing.T) {
	for name, test := range map[string]struct {
		change func(e []Event) []Event
		want   string // the only problem begins with it; "" is none
	}{
		"nothing":        {func(e []Event) []Event { return e }, ""},
		"missing":        {func(e []Event) []Event { return e[:3] }, "missing: closed 82/tcp on 0.0.0.0"},
		"a duplicate":    {func(e []Event) []Event { return append(e, reported(5, happened(Opened, 81, 0))) }, "unexpected: opened 81/tcp"},
		"another port":   {func(e []Event) []Event { return append(e, reported(5, happened(Opened, 83, 70))) }, "unexpected: opened 83/tcp"},
		"an ignored one": {func(e []Event) []Event { return append(e, reported(5, happened(Opened, 9000, 70))) }, ""},
		"a change":       {func(e []Event) []Event { return append(e, reported(5, happened("changed", 81, 20))) }, "unexpected: changed 81/tcp"},
		"a burst":        {func(e []Event) []Event { return append(e, reported(5, happened("burst", 81, 20))) }, "unexpected: want an event each"},
		"another pid":    {func(e []Event) []Event { e[0].Processes[0].ContainerPID = 8; return e }, "wrong process: opened 81/tcp on 0.0.0.0 names the process 8 of the container, want [7]"},
		"another name":   {func(e []Event) []Event { e[0].Processes[0].Name = "nginx"; return e }, "wrong process: opened 81/tcp on 0.0.0.0: the process nginx"},
		"no process":     {func(e []Event) []Event { e[2].Processes = nil; return e }, "wrong process: closed 81/tcp on 0.0.0.0 names no process"},
		"a process more": {func(e []Event) []Event {
			e[0].Processes = append(e[0].Processes, e[0].Processes[0])
			return e
		}, "wrong process: opened 81/tcp on 0.0.0.0 names 2 processes"},
		"the exposure": {func(e []Event) []Event { e[1].Exposure = model.Published; return e }, "wrong exposure: opened 82/tcp"},
		"another container too": {func(e []Event) []Event {
			e[0].Container = &model.ContainerRef{Name: "web"}
			return append([]Event{reported(0, happened(Opened, 81, 0))}, e...)
		}, "wrong container: opened 81/tcp on 0.0.0.0 is reported of the container web"},
		"another's own port": {func(e []Event) []Event {
			other := reported(5, happened(Opened, 81, 0))
			other.Container, other.Processes[0].PID = &model.ContainerRef{Name: "web"}, 99
			return append(e, other)
		}, ""},
		"ids in another order": {func(e []Event) []Event { e[0].ID, e[2].ID = e[2].ID, e[0].ID; return e }, "wrong order: closed 81/tcp on 0.0.0.0 is reported before its opening"},
		"times in another order": {func(e []Event) []Event { e[1].Time = e[0].Time.Add(-time.Microsecond); return e },
			"wrong order: opened 82/tcp on 0.0.0.0 has a time before that of opened 81/tcp"},
		"another time":   {func(e []Event) []Event { e[3].Time = e[3].Time.Add(time.Second); return e }, "wrong time: closed 82/tcp on 0.0.0.0: 999.001ms after the call"},
		"another source": {func(e []Event) []Event { e[3].Source = model.SourceDestroy; return e }, "wrong source: want the source ebpf"},
		"what netlink cannot know": {func(e []Event) []Event {
			e[1].Source, e[1].Processes, e[1].Exposure, e[1].Time = model.SourceSockDiag, nil, "", e[1].Time.Add(49*time.Millisecond)
			return e
		}, "wrong source"},
	} {
		facts := []Fact{happened(Opened, 81, 0), happened(Opened, 82, 1), happened(Closed, 81, 50), happened(Closed, 82, 60)}
		var events []Event
		for i, f := range facts {
			events = append(events, reported(uint64(i+1), f))
		}
		c := Case{Container: "demo", Facts: facts, Precision: Exact,
			Ignore:   func(at model.Endpoint) bool { return at.Port == 9000 },
			Exposure: func(model.Endpoint) model.Exposure { return model.Network }}
		r := c.Compare(test.change(events))
		if got := fmt.Sprint(r.Problems); len(r.Problems) > 1 || (test.want == "") != (got == "[]") || !strings.HasPrefix(got, "["+test.want) {
			t.Errorf("%s: %s, want %q alone", name, got, test.want)
		}
		if test.want == "" && (r.Reports != 4 || r.Processes != 4 || r.Exposures != 4 || len(r.Sources) != 1) {
			t.Errorf("%s: %+v, want 4 of all compared", name, r)
		}
	}
}

// A port is open while one of its sockets is. A scan may miss it as a whole.
func TestChangesAndSamples(t *testing.T) {
	facts := []Fact{happened(Opened, 81, 0), happened(Opened, 81, 1), happened(Held, 81, 2), happened(Closed, 81, 3), happened(Closed, 81, 4)}
	if got := Changes(facts); len(got) != 2 || got[0] != facts[0] || got[1] != facts[4] {
		t.Errorf("%+v, want the first opening and the last closing", got)
	}
	for precision, want := range map[Precision]int{Sampled: 0, Complete: 2} {
		c := Case{Container: "demo", Facts: facts, Precision: precision}
		if got := c.Compare(nil).Problems; len(got) != want {
			t.Errorf("precision %d without an event: %v, want %d problems", precision, got, want)
		}
		if got := c.Compare([]Event{reported(1, facts[0])}).Problems; len(got) == 0 {
			t.Errorf("precision %d: a port that never closes is no problem", precision)
		}
	}
	if got := CountFacts(append(facts, Fact{Action: Summary, Count: 100})); got != (Count{102, 102}) {
		t.Errorf("counted %v", got)
	}
}

// Each stage is compared with itself, and with the stage after it.
func TestUnbalanced(t *testing.T) {
	const balanced = `kernel in=10 out=7 counted=2 lost=1
facts in=7 out=5 dropped=1 held=1
counts in=2 out=2
changes in=5 out=4 counted=1
bursts in=3 counted=3
output in=7 out=7
journal in=7 out=6 lost=1`
	metrics := func(stages string) map[string][]Series {
		text := "# HELP portwatcher_pipeline_total What entered a stage.\n"
		for stage := range strings.SplitSeq(stages, "\n") {
			words := strings.Fields(stage)
			for _, count := range words[1:] {
				what, value, _ := strings.Cut(count, "=")
				if what == "held" {
					text += fmt.Sprintf("portwatcher_pipeline_held{stage=%q} %s\n", words[0], value)
				} else {
					text += fmt.Sprintf("portwatcher_pipeline_total{stage=%q,what=%q} %s\n", words[0], what, value)
				}
			}
		}
		all, err := ReadMetrics(text)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if problems := Unbalanced(metrics(balanced), Exact); len(problems) > 0 {
		t.Errorf("%v of stages that balance", problems)
	}
	for _, change := range []string{"in=10 in=11", "facts,in=7 facts,in=8", "held=1 held=2", "counts,in=2 counts,in=3", "out=4 out=5", "out=6,lost=1 out=6,lost=2"} {
		old, changed, _ := strings.Cut(strings.ReplaceAll(change, ",", "~"), " ")
		text := strings.Replace(balanced, strings.ReplaceAll(old, "~", " "), strings.ReplaceAll(changed, "~", " "), 1)
		if text == balanced || len(Unbalanced(metrics(text), Exact)) == 0 {
			t.Errorf("%s is not found", change)
		}
	}
	if problems := Unbalanced(metrics(balanced), Complete); len(problems) == 0 {
		t.Error("that there is no stage of notifications is not found")
	}
	if _, err := ReadMetrics("no sample at all\n"); err == nil {
		t.Error("a line that is no sample is no error")
	}
}
