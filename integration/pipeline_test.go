package integration

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// stages are what /metrics says of the pipeline: by stage, what became of what entered it.
type stages map[string]map[string]float64

// askStages reads the stages of the portwatcher that serves at an address.
func askStages(address string) (stages, error) {
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %s: %w", response.Status, err)
	}
	all, err := readMetrics(string(text))
	if err != nil {
		return nil, err
	}
	found := stages{}
	for _, name := range []string{"portwatcher_pipeline_total", "portwatcher_pipeline_held"} {
		for _, one := range all[name] {
			stage := one.labels["stage"]
			if found[stage] == nil {
				found[stage] = map[string]float64{}
			}
			what := one.labels["what"]
			if name == "portwatcher_pipeline_held" {
				what = "held"
			}
			found[stage][what] = one.value
		}
	}
	return found, nil
}

// unbalanced says which stages do not account for all that entered them, or do not get
// all that left the one before.
func (s stages) unbalanced(source string) string {
	var problems []string
	equal := func(what string, got, want float64) {
		if got != want {
			problems = append(problems, fmt.Sprintf("%s: %.0f and %.0f", what, got, want))
		}
	}
	names := []string{"changes", "bursts", "output", "journal"}
	if source == ebpf {
		names = append(names, "kernel", "facts", "counts")
		equal("records of the kernel and facts", s["kernel"]["out"], s["facts"]["in"])
		equal("counts of the kernel and those taken", s["kernel"]["counted"], s["counts"]["in"])
	}
	if source == netlink {
		names = append(names, "notifications")
	}
	for _, name := range names {
		stage := s[name]
		if stage == nil {
			problems = append(problems, "there is no stage "+name)
			continue
		}
		equal(name+": in, and what became of it", stage["in"], stage["out"]+stage["counted"]+stage["held"]+stage["dropped"]+stage["lost"])
	}
	sent := s["changes"]["out"] + s["bursts"]["counted"]
	equal("changes and bursts, and what the output was offered", sent, s["output"]["in"])
	equal("changes and bursts, and what the journal was offered", sent, s["journal"]["in"])
	slices.Sort(problems)
	return strings.Join(problems, "; ")
}

// balanced waits until each stage of the pipeline accounts for all that entered it: while
// something happens on the host, some of it is between two stages.
func balanced(t *testing.T, address, source string) {
	t.Helper()
	if source == proc {
		return
	}
	harness.Eventually(t, "the stages of the pipeline balance", func() string {
		s, err := askStages(address)
		if err != nil {
			return err.Error()
		}
		if problem := s.unbalanced(source); problem != "" {
			return fmt.Sprintf("%s; %v", problem, s)
		}
		return ""
	})
}
