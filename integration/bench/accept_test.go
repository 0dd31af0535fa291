package main

import (
	"math"
	"testing"
	"time"
)

func TestBetweenTakesWholeSamplesInside(t *testing.T) {
	begin := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	var samples []connectionSample
	for i := range int64(10) {
		samples = append(samples, connectionSample{begin.Add(time.Duration(i) * time.Second), i * 100, i * 10, i * 20})
	}
	got, err := between(samples, begin.Add(1500*time.Millisecond), begin.Add(4500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if got.Connections != 200 || got.Server != 20 || got.Client != 40 || got.span != 2*time.Second {
		t.Errorf("%+v, want what happened from the second to the fourth second", got)
	}
	if _, err := between(samples, begin.Add(time.Hour), begin.Add(2*time.Hour)); err == nil {
		t.Error("a span without samples is no error")
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	a := acceptResult{
		server: map[string][]float64{turnWithout: {1, 2}, sourceEBPF: {2, 2}},
		client: map[string][]float64{turnWithout: {1, 2}, sourceEBPF: {1, 4}},
	}
	got := a.ratios(sourceEBPF, a.server, a.client)
	if len(got) != 2 || got[0] != 1.5 || got[1] != 1.5 {
		t.Errorf("%v, want 1.5 and 1.5", got)
	}
}

func TestBusyTimeRises(t *testing.T) {
	before, err := busyTime()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, err := busyTime()
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not rise while this test is busy")
		}
	}
}

func TestPairsAreOfNeighbours(t *testing.T) {
	begin := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	var samples []connectionSample
	var cost int64
	for i := range int64(31) { // 10 connections a second; their cost changes each 10 s
		samples = append(samples, connectionSample{at(int(i)), i * 10, cost, cost})
		cost += []int64{100, 220, 300, 300}[i/10]
	}
	span := func(from, to int, workers time.Duration) [2]pairSample {
		return [2]pairSample{{at(from), time.Second}, {at(to), time.Second + workers}}
	}
	pairs, err := makePairs(pairSpans{span(0, 10, 0), span(10, 20, 0), span(20, 30, 0)}, samples)
	if err != nil || len(pairs) != 1 {
		t.Fatalf("%v, %v, want one pair", pairs, err)
	}
	if share, low, high := added(pairs); math.Abs(share-0.1) > 1e-9 || low != share || high != share {
		t.Errorf("%v more (%v to %v), want a tenth more than the 200 between 100 and 300", share, low, high)
	}
	// 100 connections each.
	pairs, err = makePairs(pairSpans{span(0, 10, time.Second), span(10, 20, 3*time.Second), span(20, 30, time.Second)}, samples)
	if err != nil || len(pairs) != 1 {
		t.Fatalf("%v, %v, want one pair", pairs, err)
	}
	if seconds, _, _ := addedTime(pairs); math.Abs(seconds-0.02) > 1e-6 {
		t.Errorf("%v seconds more a connection, want the 2 s more of the workers for 100", seconds)
	}
	without := span(100, 110, 0)
	pairs, err = makePairs(pairSpans{span(0, 10, 0), span(10, 20, 0), span(20, 30, 0), without, span(0, 10, 0)}, samples)
	if err != nil || len(pairs) != 1 {
		t.Errorf("%v, %v, want the pair without the span that has no samples", pairs, err)
	}
	if _, err := makePairs(pairSpans{span(0, 10, 0), without, span(10, 20, 0)}, samples); err == nil {
		t.Error("no pair at all is no error")
	}
}

func TestAddedHasAnInterval(t *testing.T) {
	var pairs []pair
	for i := range 401 {
		pairs = append(pairs, pair{with: 1 + float64(i-200)/1000, without: 1})
	}
	// 1.96 times the square root of 401, halved, are 20 ranks.
	if share, low, high := added(pairs); math.Abs(share) > 1e-9 || math.Abs(low+0.020) > 0.0011 || math.Abs(high-0.020) > 0.0011 {
		t.Errorf("%v (%v to %v), want 0 and about 20 ranks of a thousandth on both sides", share, low, high)
	}
}
