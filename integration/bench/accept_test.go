package main

import (
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
