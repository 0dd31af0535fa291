package integration

import (
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// Four containers open and close a port as fast as they can and are killed right
// after. However far behind portwatcher is by then, all of it is accounted for, with
// its container, or in the number of a gap.
//
// It does not run beside other tests, which it would slow down.
func TestStormsThatEnd(t *testing.T) { eachCountingSource(t, endingStorms) }

func endingStorms(t *testing.T, source string) {
	const count = 30_000
	recording := harness.StartRecording(t, harness.Pattern(t), "--source", source)
	stormy := harness.Default.StartMany(t, 4, harness.Spec{
		Name: harness.Name(t, "ends"), Options: []string{"--network", "none"},
		Command: []string{"listen", "--tcp", "127.0.0.1:80"},
	})
	var ready [][]string
	for _, container := range stormy {
		ready = append(ready, []string{container.ID, `"opened"`})
	}
	recording.WaitLines(t, ready...)
	happened := map[string]truth.Count{}
	for _, container := range stormy {
		happened[container.ID] = truth.Count{Opened: 1, Closed: 1} // port 80
	}
	if err := rage(stormy, []string{"tcp"}, count, happened); err != nil {
		t.Fatal(err)
	}
	for _, container := range stormy {
		container.Do(t, "kill")
	}
	for _, container := range stormy {
		recording.WaitLog(t, "The container has ended.", container.Name)
	}
	ledger, _ := readStorm(t, recording, stormy, 80)
	t.Log(ledger)
	for _, problem := range ledger.Judge(happened, truth.PrecisionOf(source)).Problems {
		t.Error(problem)
	}
	if ledger.Unnumbered > 0 && source == ebpf {
		t.Errorf("%d gaps have no number", ledger.Unnumbered)
	}
}
