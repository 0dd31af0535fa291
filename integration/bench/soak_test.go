package main

import (
	"fmt"
	"strings"
	"testing"
)

// The stages are compared each with itself, and with the one after it.
func TestUnbalanced(t *testing.T) {
	metrics := func() map[string]float64 {
		m := map[string]float64{}
		for stage, counts := range map[string]string{
			"kernel": "in=10 out=7 counted=2 lost=1", "facts": "in=7 out=5 dropped=1 held=1", "counts": "in=2 out=2",
			"changes": "in=5 out=4 counted=1", "bursts": "in=3 counted=3", "output": "in=7 out=7", "journal": "in=7 out=6 lost=1",
		} {
			m[fmt.Sprintf(`portwatcher_pipeline_held{stage=%q}`, stage)] = 0
			for _, count := range strings.Fields(counts) {
				what, value, _ := strings.Cut(count, "=")
				name := fmt.Sprintf(`portwatcher_pipeline_total{stage=%q,what=%q}`, stage, what)
				if what == "held" {
					name = fmt.Sprintf(`portwatcher_pipeline_held{stage=%q}`, stage)
				}
				m[name] = float64(number([]byte(value)))
			}
		}
		return m
	}
	if problems := unbalanced(metrics(), sourceEBPF); len(problems) > 0 {
		t.Errorf("%q of stages that balance", problems)
	}
	for _, name := range []string{
		`portwatcher_pipeline_total{stage="kernel",what="in"}`, `portwatcher_pipeline_total{stage="facts",what="in"}`, `portwatcher_pipeline_held{stage="facts"}`,
		`portwatcher_pipeline_total{stage="counts",what="in"}`, `portwatcher_pipeline_total{stage="changes",what="out"}`, `portwatcher_pipeline_total{stage="journal",what="lost"}`,
	} {
		m := metrics()
		m[name]++
		if len(unbalanced(m, sourceEBPF)) == 0 {
			t.Errorf("one more of %s is not seen", name)
		}
	}
	if problems := unbalanced(metrics(), sourceNetlink); len(problems) == 0 {
		t.Error("that there is no stage of notifications is not seen")
	}
}
