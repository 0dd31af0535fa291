package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// Settings are read again while a container opens and closes a port as fast as
// it can: nothing is lost by it, or a gap says so.
//
// It does not run beside other tests, which it would slow down.
func TestReloadInStorm(t *testing.T) {
	harness.Require(t)
	const count, reloads = 40_000, 5
	for _, source := range []string{ebpf, netlink} {
		t.Run(source, func(t *testing.T) {
			if source == ebpf {
				requireEBPF(t)
			}
			stormy := idle(t, "stormy", "--network", "none")
			file := filepath.Join(t.TempDir(), "portwatcher.yaml")
			write := func(clients bool) {
				if err := os.WriteFile(file, fmt.Appendf(nil, "udp_clients: %v\n", clients), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(false)
			recording := harness.StartRecording(t, harness.Pattern(t), "--source", source, "--config", file)
			mark(t, recording, stormy, 1000)
			done := make(chan error, 1)
			go func() {
				_, err := rage(stormy, "tcp", count)
				done <- err
			}()
			for reload := range reloads {
				recording.WaitLine(t, `"port":20000,`)
				// A change of these begins to watch anew.
				write(reload%2 == 0)
				recording.Reload(t)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			mark(t, recording, stormy, 1001)
			opened, closed, gaps := 0, 0, 0
			recording.Finish(t, func(line string) {
				switch {
				case strings.Contains(line, `"type":"gap"`):
					gaps++
					t.Logf("a gap: %s", line)
				case !strings.Contains(line, `"port":20000,`):
				case strings.Contains(line, `"type":"opened"`):
					opened++
				default:
					closed++
				}
			})
			// Without eBPF a scan may hide what closes at its port; a gap tells of it.
			complete := opened == count && gaps == 0 || source == netlink && opened <= count && gaps > 0
			if !complete || closed != opened {
				t.Errorf("%d opened, %d closed and %d gaps, of %d", opened, closed, gaps, count)
			}
		})
	}
}
