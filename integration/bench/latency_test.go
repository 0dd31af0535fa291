package main

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

func TestDelaysAreOfTheFirstLine(t *testing.T) {
	begin := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	event := func(kind, number string, after time.Duration) arrival {
		return arrival{[]byte(`{"type":"` + kind + `","protocol":"tcp","address":"127.0.0.1","port":` + number + `}`), begin.Add(after)}
	}
	told, err := firstArrivals([]arrival{
		event("opened", "80", time.Millisecond), event("opened", "80", time.Second), event("closed", "80", time.Minute),
		event("opened", "82", time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	d := delays{protocol: "tcp", kind: model.Opened}
	d.add([]fact{
		{Action: "opened", Protocol: "tcp", Port: 80, Time: begin},
		{Action: "opened", Protocol: "tcp", Port: 81, Time: begin},
		{Action: "opened", Protocol: "udp", Port: 82, Time: begin},
		{Action: "closed", Protocol: "tcp", Port: 80, Time: begin},
	}, told)
	if d.done != 2 || len(d.times) != 1 || d.times[0] != time.Millisecond {
		t.Errorf("%+v, want 2 done and one delay of 1 ms", d)
	}
}

func TestAnAimWithoutEventsIsMissed(t *testing.T) {
	d := delays{done: 3}
	if a := d.aim("p50", 0.5, time.Second); a.met {
		t.Errorf("%+v", a)
	}
}
