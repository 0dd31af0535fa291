package integration

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// `events` reads the journal while a storm is being written: rising ids without
// a hole, and with --follow what comes.
func TestMemoryEventsInStorm(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	stormy := idle(t, "stormy")
	recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
	mark(t, recording, stormy, 1000)
	harness.WaitJournal(t, state)
	follower := harness.StartFollower(t, state, "--format", "json", "--since", "1h")
	storm := make(chan struct{})
	go func() {
		defer close(storm)
		_, err := stormy.RunFacts("storm", "--count", "20000", "--port", itoa(stormPort))
		if err != nil && !strings.Contains(err.Error(), "address already in use") {
			t.Error(err)
		}
	}()
	recording.WaitReported(t, 1000)
	newest := uint64(0)
	for raging := true; raging; {
		select {
		case <-storm:
			raging = false
		default:
		}
		lines := harness.JournalLines(t, state, "--limit", "2000")
		first, last := harness.LineID(t, lines[0]), harness.LineID(t, lines[len(lines)-1])
		if last-first != uint64(len(lines)-1) || last < newest {
			t.Errorf("after %d: %d events have the ids %d to %d", newest, len(lines), first, last)
		}
		newest = last
		if its := harness.JournalLines(t, state, "--limit", "100", "--container", stormy.Name); len(its) > 100 || harness.LineID(t, its[len(its)-1]) < newest {
			t.Errorf("--limit 100: %d events, the last is %s; %d was in the journal", len(its), its[len(its)-1], newest)
		}
	}
	mark(t, recording, stormy, 1001)
	recording.Stop(t)
	printed := recording.Printed(t)
	sameLines(t, "the journal", harness.JournalLines(t, state), printed)
	sameLines(t, "events --follow", follower.Finish(t, printed[len(printed)-1]), printed)
}

// Each filter of `events` selects what it names, and nothing else.
func TestMemoryEventsFilters(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	compose := []string{"--label", "com.docker.compose.project=" + harness.Name(t, "shop"), "--label", "com.docker.compose.service=web"}
	watch := harness.StartWatch(t, harness.WatchSpec{State: state})
	web := start(t, "web", 3, compose, "--tcp", "0.0.0.0:80,127.0.0.1:81", "--udp", "0.0.0.0:80")
	db := start(t, "db", 1, nil, "--tcp", "0.0.0.0:5432")
	watch.WaitOpen(t, listening(t, web, 3), listening(t, db, 1))
	watch.Marker(t, db, 1000)
	middle := watch.WaitEvent(t, 0, harness.Closed(db.Name, "tcp", "127.0.0.1", 1000))
	web.Do(t, "stop")
	watch.WaitOpen(t, listening(t, db, 1))
	watch.Marker(t, db, 8050)
	all := watch.Events(harness.Match{})
	harness.Eventually(t, "all is in the journal", func() string {
		lines := harness.JournalLines(t, state)
		if len(lines) != len(all) {
			return strings.Join(lines, "\n")
		}
		return ""
	})
	of := func(names ...string) func(truth.Event) bool {
		return func(e truth.Event) bool { return slices.Contains(names, e.Container.Name) }
	}
	stamp := harness.Stamp(middle.Time)
	zone := middle.Time.In(time.FixedZone("", 2*60*60))
	for name, test := range map[string]struct {
		arguments []string
		matches   func(truth.Event) bool
		last      int // how many of them; 0: all
	}{
		"all":               {nil, func(truth.Event) bool { return true }, 0},
		"name":              {[]string{"--container", web.Name}, of(web.Name), 0},
		"names":             {[]string{"--container", web.Name, "--container", db.Name}, of(web.Name, db.Name), 0},
		"pattern":           {[]string{"--container", harness.Name(t, "w*")}, of(web.Name), 0},
		"id":                {[]string{"--container", db.ID}, of(db.Name), 0},
		"beginning of id":   {[]string{"--container", db.ID[:12]}, of(db.Name), 0},
		"service":           {[]string{"--container", harness.Name(t, "shop") + "/web"}, of(web.Name), 0},
		"nobody":            {[]string{"--container", "nobody"}, of(), 0},
		"port":              {[]string{"--port", "80"}, func(e truth.Event) bool { return e.Port == 80 }, 0},
		"port of protocol":  {[]string{"--port", "80/udp"}, func(e truth.Event) bool { return e.Port == 80 && e.Protocol == model.UDP }, 0},
		"ports":             {[]string{"--port", "8000-8100/tcp,5432"}, func(e truth.Event) bool { return e.Port == 8050 || e.Port == 5432 }, 0},
		"type":              {[]string{"--type", "closed"}, func(e truth.Event) bool { return e.Type == "closed" }, 0},
		"types":             {[]string{"--type", "opened", "--type", "gap"}, func(e truth.Event) bool { return e.Type == "opened" }, 0},
		"since":             {[]string{"--since", stamp}, func(e truth.Event) bool { return !e.Time.Before(middle.Time) }, 0},
		"since, other zone": {[]string{"--since", zone.Format(time.RFC3339Nano)}, func(e truth.Event) bool { return !e.Time.Before(middle.Time) }, 0},
		"until":             {[]string{"--until", stamp}, func(e truth.Event) bool { return e.Time.Before(middle.Time) }, 0},
		"duration":          {[]string{"--since", "1h"}, func(truth.Event) bool { return true }, 0},
		"until a duration":  {[]string{"--until", "1d"}, of(), 0},
		"limit":             {[]string{"--limit", "3"}, func(truth.Event) bool { return true }, 3},
		"several": {[]string{"--container", web.Name, "--type", "closed", "--port", "80", "--since", stamp, "--limit", "1"},
			func(e truth.Event) bool { return e.Container.Name == web.Name && e.Type == "closed" && e.Port == 80 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, event := range all {
				if test.matches(event) {
					want = append(want, event.Line)
				}
			}
			if test.last > 0 {
				want = want[len(want)-test.last:]
			}
			sameLines(t, "events", harness.JournalLines(t, state, test.arguments...), want)
			text := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, append([]string{"events"}, test.arguments...)...)
			if lines := strings.Count(text.Stdout, "\n"); lines != len(want) || text.Status != 0 {
				t.Errorf("as text: exit status %d, %d lines, want %d: %s%s", text.Status, lines, len(want), text.Stdout, text.Stderr)
			}
		})
	}
	text := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, "events", "--port", "5432")
	pattern := `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ` + regexp.QuoteMeta(db.Name) + `: New port opened: 5432/tcp on 0\.0\.0\.0 \(pids: ` + itoa(db.PID) + ` workload\)\n$`
	if !regexp.MustCompile(pattern).MatchString(text.Stdout) {
		t.Errorf("%q, want %s", text.Stdout, pattern)
	}
}

// A bad value of `events` and of `ports --at` is named with its flag and what is
// allowed; a journal that is not there, with what to do.
func TestMemoryBadQueries(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	for name, test := range map[string]struct {
		arguments []string
		texts     []string
	}{
		"since":              {[]string{"events", "--since", "yesterday"}, []string{"--since", "yesterday", "1h"}},
		"until":              {[]string{"events", "--until", "2026-13-01"}, []string{"--until", "2026-13-01"}},
		"until before since": {[]string{"events", "--since", "1h", "--until", "2h"}, []string{"--until", "2h", "1h"}},
		"port":               {[]string{"events", "--port", "70000"}, []string{"--port", "70000", "65535"}},
		"port range":         {[]string{"events", "--port", "90-80"}, []string{"--port", "90-80"}},
		"protocol":           {[]string{"events", "--port", "80/icmp"}, []string{"--port", "80/icmp", "tcp"}},
		"type":               {[]string{"events", "--type", "open"}, []string{"--type", "open", "opened", "closed", "changed", "burst", "gap"}},
		"limit":              {[]string{"events", "--limit", "-1"}, []string{"--limit", "-1", "0"}},
		"limit, no number":   {[]string{"events", "--limit", "many"}, []string{"--limit", "many"}},
		"container":          {[]string{"events", "--container", "web["}, []string{"--container", "web[", "allowed", "[a-z]"}},
		"service":            {[]string{"events", "--container", "a/b/c"}, []string{"--container", "a/b/c", "project/service"}},
		"format":             {[]string{"events", "--format", "xml"}, []string{"--format", "xml", "json"}},
		"at":                 {[]string{"ports", "--at", "noon"}, []string{"--at", "noon", "1h"}},
		"journal in memory":  {[]string{"events", "--state", "memory"}, []string{"--state", "memory"}},
	} {
		t.Run(name, func(t *testing.T) {
			result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, test.arguments...)
			if problem := harness.OneLine(result.Stderr, test.texts...); problem != "" || result.Status != 2 || result.Stdout != "" {
				t.Errorf("exit status %d, want 2; standard output %q; %s", result.Status, result.Stdout, problem)
			}
		})
	}
	for _, command := range [][]string{{"events"}, {"events", "--follow"}, {"ports", "--at", "1h"}} {
		result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state}, command...)
		if problem := harness.OneLine(result.Stderr, "no journal", state, "portwatcher run", "--state"); problem != "" || result.Status != 1 {
			t.Errorf("%q without a journal: exit status %d, want 1; %s", command, result.Status, problem)
		}
	}
}
