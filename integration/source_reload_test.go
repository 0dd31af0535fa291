package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/truth"
)

// Settings are read again while a container opens and closes a port as fast as
// it can: all of it is accounted for.
//
// It does not run beside other tests, which it would slow down.
func TestReloadInStorm(t *testing.T) { eachCountingSource(t, reloadInStorm) }

func reloadInStorm(t *testing.T, source string) {
	const count, reloads = 40_000, 5
	stormy := idle(t, "stormy", "--network", "none")
	file := filepath.Join(t.TempDir(), "portwatcher.yaml")
	write := func(clients bool) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "udp_clients: %v\n", clients), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(false)
	recording := harness.StartRecording(t, harness.Pattern(t), "--source", source, "--config", file)
	fleet := &fleet{stormy: []*harness.Container{stormy}}
	happened := map[string]truth.Count{}
	fleet.mark(t, []*harness.Recording{recording}, 1000, happened)
	done := make(chan error, 1)
	go func() { done <- rage(fleet.stormy, []string{"tcp"}, count, happened) }()
	recording.WaitReported(t, 1000)
	for reload := range reloads {
		// A change of these begins to watch anew.
		write(reload%2 == 0)
		recording.Reload(t)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	fleet.mark(t, []*harness.Recording{recording}, 1001, happened)
	ledger, _ := readStorm(t, recording, fleet.stormy, 1000, 1001)
	t.Log(ledger)
	for _, problem := range ledger.Judge(happened, truth.PrecisionOf(source)).Problems {
		t.Error(problem)
	}
	if source == ebpf && ledger.Unnumbered > 0 {
		t.Errorf("%d gaps have no number", ledger.Unnumbered)
	}
}
