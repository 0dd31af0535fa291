package controller

import (
	"testing"
)

func TestCalm(t *testing.T) {
	s := calm{timer: stoppedTimer()}
	for range stormSize {
		s.count()
	}
	if !s.timer.Stop() {
		t.Error("the timer does not run after a storm began")
	}
	if s.over() {
		t.Error("over at once: the storm's first part has just been")
	}
	for range stormSize {
		s.count()
	}
	if s.over() {
		t.Error("over while it goes on")
	}
	s.count()
	if !s.over() || s.facts != 0 {
		t.Errorf("not over after a calm: %+v", s)
	}
}
