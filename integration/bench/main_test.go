package main

import (
	"strings"
	"testing"
)

func TestFlagsOutOfRangeAreRefused(t *testing.T) {
	for _, arguments := range []string{
		"--only nothing", "--scan-rounds 0", "--fleet-containers 501", "--fleet-ports 0", "--fleet-starts -1",
		"--fleet-steady 1ms", "--fleet-network host", "--capture-count 999", "--latency-count 0", "--accept-rounds 1", "--accept-turn 1ms", "--journal-events 1", "scan",
	} {
		if _, _, err := parse(strings.Fields(arguments)); err == nil {
			t.Errorf("%s is accepted", arguments)
		}
	}
}

func TestOnlyChoosesThemes(t *testing.T) {
	_, chosen, err := parse([]string{"--only", "fleet"})
	if err != nil {
		t.Fatal(err)
	}
	if len(chosen) != 1 || chosen[0].name != "fleet" {
		t.Errorf("--only fleet chooses %v", chosen)
	}
}
