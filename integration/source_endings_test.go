package integration

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"portwatcher/integration/internal/harness"
)

// lostEvents is how many events a gap says were lost.
var lostEvents = regexp.MustCompile(`"reason":"(\d+) socket events`)

// Four containers open and close a port as fast as they can and are killed right
// after. However far behind portwatcher is by then, all of it is reported, with
// its container, or a gap says what is missing.
//
// It does not run beside other tests, which it would slow down.
func TestStormsThatEnd(t *testing.T) {
	harness.Require(t)
	for _, source := range []string{ebpf, netlink} {
		t.Run(source, func(t *testing.T) {
			if source == ebpf {
				requireEBPF(t)
			}
			endingStorms(t, source)
		})
	}
}

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
	var storms sync.WaitGroup
	failures := make([]error, len(stormy))
	for i, container := range stormy {
		storms.Go(func() {
			_, err := rage(container, "tcp", count)
			if err == nil {
				_, err = harness.Default.Docker("kill", container.ID)
			}
			failures[i] = err
		})
	}
	storms.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	for _, container := range stormy {
		recording.WaitLog(t, "The container has ended.", container.Name)
	}

	opened, closed := map[string]int{}, map[string]int{}
	lost, gaps := 0, 0
	recording.Finish(t, func(line string) {
		_, rest, _ := strings.Cut(line, `"type":"`)
		kind, rest, _ := strings.Cut(rest, `"`)
		if kind == "gap" {
			t.Logf("a gap: %s", line)
			gaps++
			if told := lostEvents.FindStringSubmatch(line); told != nil {
				number, err := strconv.Atoi(told[1])
				if err != nil {
					t.Fatal(err)
				}
				lost += number
			}
			return
		}
		if !strings.Contains(line, `"port":20000,`) {
			return
		}
		_, id, _ := strings.Cut(rest, `"container":{"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		if kind == "opened" {
			opened[id]++
		} else {
			closed[id]++
		}
	})
	missing := 0
	for _, container := range stormy {
		t.Logf("%s: %d opened, %d closed, of %d", container.Name, opened[container.ID], closed[container.ID], count)
		if opened[container.ID] != closed[container.ID] || opened[container.ID] > count {
			t.Errorf("%s: %d opened, %d closed, of %d", container.Name, opened[container.ID], closed[container.ID], count)
		}
		missing += count - opened[container.ID]
	}
	// An opening and its close are two events, of which one may be known.
	if source == ebpf && missing > lost || missing > 0 && gaps == 0 {
		t.Errorf("%d ports are missing, but gaps tell of %d lost events", missing, lost)
	}
}
