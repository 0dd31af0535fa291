package main

import (
	"context"
	"testing"
	"time"
)

// The lines are those of real runs.
func TestLinesAreRead(t *testing.T) {
	const event = `{"id":2,"time":"2026-11-22T20:41:37.93Z","type":"opened","host":"vm","container":{"id":"d9","name":"a","image":"b"},` +
		`"protocol":"tcp","address":"127.0.0.1","port":29311,"processes":[{"pid":17054,"name":"workload"}],"transient":false}`
	for name, test := range map[string]struct {
		parse func([]byte) observation
		line  string
		want  observation
	}{
		"event":     {parsePortwatcher, event, observation{opened: 1, named: true, port: 29311, container: "d9"}},
		"transient": {parsePortwatcher, `{"id":3,"type":"closed","port":29400,"exposure":"loopback"}`, observation{closed: 1, port: 29400}},
		"burst": {parsePortwatcher, `{"id":4,"type":"burst","port":29311,"processes":[{"pid":17054}],"source":"ebpf","transient":false,"opened":512,"closed":511,"first":"x"}`,
			observation{opened: 512, closed: 511, burst: true, named: true, port: 29311}},
		"gap": {parsePortwatcher, `{"id":4,"type":"gap","host":"vm","container":{"id":"d9","name":"a"},"transient":false,"reason":"lost","lost":5194}`,
			observation{gap: true, losses: 5194, container: "d9"}},
		"gap without a number": {parsePortwatcher, `{"id":4,"type":"gap","host":"vm","transient":false,"reason":"an overrun"}`, observation{gap: true}},
		"opening":              {parseTCPStates, "ffff8881328f2e40 11944   workload   0.0.0.0         80    0.0.0.0         0     CLOSE       -> LISTEN      0.000", observation{opened: 1, named: true, port: 80}},
		"close":                {parseTCPStates, "ffff8881328f2e40 11944   workload   0.0.0.0         80    0.0.0.0         0     LISTEN      -> CLOSE       50.000", observation{closed: 1, named: true, port: 80}},
		"accepted":             {parseTCPStates, "ffff8881328f2e40 0       swapper/1  127.0.0.1       80    127.0.0.1       4711  LISTEN      -> SYN_RECV    0.000", observation{port: 80}},
		"lost":                 {parseTCPStates, "lost 410 events on CPU #1", observation{losses: 410}},
		"bpftrace":             {parseBpftrace, "state 7 10 80 12098", observation{opened: 1, named: true, port: 80}},
		"its close":            {parseBpftrace, "state 10 7 80 12098", observation{closed: 1, named: true, port: 80}},
		"its losses":           {parseBpftrace, "Lost 1895 events", observation{losses: 1895}},
		"its banner":           {parseBpftrace, "Attaching 1 probe...", observation{}},
		"ss":                   {parseSS, "UNCONN 0      0      127.0.0.1:29311 0.0.0.0:*", observation{closed: 1, port: 29311}},
		"nothing":              {parseSS, "", observation{}},
	} {
		if got := test.parse([]byte(test.line)); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestTallyTellsTheLoadsApart(t *testing.T) {
	var counted tally
	for _, port := range []int{stormPort, heldPort - 1, heldPort, heldPort + heldCount - 1, heldPort + heldCount, canaryPort} {
		counted.add(observation{opened: 1, named: true, port: port})
		counted.add(observation{closed: 1, port: port, losses: 1})
	}
	counted.add(observation{opened: 4, closed: 3, burst: true, port: stormPort})
	storm, held, losses := counted.counts()
	if storm != (reported{1, 1, 1, 7}) || held != (reported{2, 2, 2, 0}) || losses != 6 || !counted.sawCanary() {
		t.Errorf("storm %+v, held %+v, losses %d, canary %v", storm, held, losses, counted.sawCanary())
	}
}

func TestAwaitEndsWhenItIsQuiet(t *testing.T) {
	begin := time.Now()
	if err := new(tally).await(context.Background(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(begin); waited < quietTime {
		t.Errorf("ended after %v, want at least %v", waited, quietTime)
	}
}
