package truth

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Series is one sample of /metrics.
type Series struct {
	Labels map[string]string
	Value  float64
}

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	label  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// ReadMetrics reads the text of /metrics, by the name of the metric.
func ReadMetrics(text string) (map[string][]Series, error) {
	all := map[string][]Series{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := sample.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if fields == nil {
			return nil, fmt.Errorf("/metrics: no sample: %q", line)
		}
		value, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
		one := Series{map[string]string{}, value}
		for _, pair := range label.FindAllStringSubmatch(fields[2], -1) {
			one.Labels[pair[1]] = pair[2]
		}
		all[fields[1]] = append(all[fields[1]], one)
	}
	return all, nil
}

// Unbalanced returns the stages of portwatcher's pipeline that do not account for all
// that entered them, or do not receive all that left the stage before. While something
// happens on the host, some of it is between two stages.
func Unbalanced(metrics map[string][]Series, precision Precision) (problems []Problem) {
	stages := map[string]map[string]float64{}
	for name, what := range map[string]string{"portwatcher_pipeline_total": "", "portwatcher_pipeline_held": "held"} {
		for _, one := range metrics[name] {
			stage := one.Labels["stage"]
			if stages[stage] == nil {
				stages[stage] = map[string]float64{}
			}
			stages[stage][what+one.Labels["what"]] = one.Value
		}
	}
	equal := func(what string, got, want float64) {
		if got != want {
			problems = append(problems, Problem{Kind: Unaccounted, Text: fmt.Sprintf("%s: %.0f and %.0f", what, got, want)})
		}
	}
	names := []string{"changes", "bursts", "output", "journal"}
	switch precision {
	case Exact:
		names = append(names, "kernel", "facts", "counts")
		equal("records of the kernel, and facts in", stages["kernel"]["out"], stages["facts"]["in"])
		equal("counts of the kernel, and counts in", stages["kernel"]["counted"], stages["counts"]["in"])
	case Complete:
		names = append(names, "notifications")
	}
	for _, name := range names {
		s := stages[name]
		if s == nil {
			problems = append(problems, Problem{Kind: Missing, Text: "the stage " + name})
			continue
		}
		equal(name+": in, and what became of it", s["in"], s["out"]+s["counted"]+s["held"]+s["dropped"]+s["lost"])
	}
	sent := stages["changes"]["out"] + stages["bursts"]["counted"]
	equal("changes and bursts, and output in", sent, stages["output"]["in"])
	equal("changes and bursts, and journal in", sent, stages["journal"]["in"])
	return problems
}
