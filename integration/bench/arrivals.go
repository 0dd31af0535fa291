package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// arrivalPatience bounds the wait for the events of single ports.
const arrivalPatience = 30 * time.Second

// A change is something that the workload does once in a run, and an event reports.
type change struct {
	kind     model.Type
	protocol model.Protocol
	port     uint16
}

// An arrival is a line of standard output and when it was read.
type arrival struct {
	line []byte
	at   time.Time
}

// arrivals collects the lines of openings and closings. Its owner may read it
// when portwatcher prints no more, or under the mutex.
type arrivals struct {
	mutex sync.Mutex
	lines []arrival
}

func (a *arrivals) add(line []byte, at time.Time) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.lines = append(a.lines, arrival{bytes.Clone(line), at})
}

// await waits for so many lines, or until it is quiet.
func (a *arrivals) await(ctx context.Context, count int) ([]arrival, error) {
	begin := time.Now()
	for {
		a.mutex.Lock()
		lines, last := a.lines, begin
		a.mutex.Unlock()
		if len(lines) > 0 && lines[len(lines)-1].at.After(begin) {
			last = lines[len(lines)-1].at
		}
		if len(lines) >= count || time.Since(last) > quietTime || time.Since(begin) > arrivalPatience {
			return lines, nil
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// delays are from the call to the line on standard output.
type delays struct {
	source   string
	protocol model.Protocol
	kind     model.Type
	done     int // by the workload
	times    []time.Duration
	cost     time.Duration // CPU of portwatcher for each event of the protocol
}

// firstArrivals returns when each change was reported first.
func firstArrivals(lines []arrival) (map[change]time.Time, error) {
	reported := map[change]time.Time{}
	var reader truth.Reader
	for _, l := range lines {
		e, err := reader.Read(string(l.line))
		if err != nil {
			return nil, fmt.Errorf("event %q: %w", l.line, err)
		}
		c := change{e.Type, e.Protocol, e.Port}
		if _, found := reported[c]; !found {
			reported[c] = l.at
		}
	}
	return reported, nil
}

// add compares the workload's facts with when they were reported. The times are of the same
// clock: that of the host.
func (d *delays) add(facts []truth.Fact, reported map[change]time.Time) {
	for _, f := range facts {
		if string(f.Action) != string(d.kind) || f.Protocol != d.protocol {
			continue
		}
		d.done++
		if at, found := reported[change{d.kind, f.Protocol, f.Port}]; found {
			d.times = append(d.times, at.Sub(f.Time))
		}
	}
}

// delaysOf returns the delays of those TCP facts that were reported.
func delaysOf(facts []truth.Fact, reported map[change]time.Time) []time.Duration {
	var times []time.Duration
	for _, kind := range []model.Type{model.Opened, model.Closed} {
		d := delays{protocol: model.TCP, kind: kind}
		d.add(facts, reported)
		times = append(times, d.times...)
	}
	return times
}
