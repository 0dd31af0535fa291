package main

import (
	"strings"
	"testing"
)

func TestFlagsOutOfRangeAreRefused(t *testing.T) {
	for _, arguments := range []string{
		"--theme nothing", "--scan-rounds 0", "--fleet-containers 501", "--fleet-ports 0", "--fleet-starts -1",
		"--fleet-steady 1ms", "--fleet-network host", "--capture-count 999", "--latency-count 0", "--accept-rounds 1", "--accept-turn 1ms", "--journal-events 1", "--soak-length 1s", "--soak-containers 1", "--soak-storm 1", "scan",
	} {
		if _, _, err := parse(strings.Fields(arguments)); err == nil {
			t.Errorf("%s is accepted", arguments)
		}
	}
}

func TestThemeChoosesThemes(t *testing.T) {
	_, chosen, err := parse([]string{"--theme", "fleet"})
	if err != nil {
		t.Fatal(err)
	}
	if len(chosen) != 1 || chosen[0].name != "fleet" {
		t.Errorf("--theme fleet chooses %v", chosen)
	}
}
