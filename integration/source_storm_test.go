package integration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

const (
	// stormSize is how often a storm opens and closes its port.
	stormSize = 100_000
	stormPort = 20000
)

// One of twenty containers opens and closes a port as fast as it can, which is
// reported in full, and does no harm to what happens in the others.
//
// It does not run beside other tests, which it would slow down.
func TestStorm(t *testing.T) {
	harness.Require(t)
	monitor := harness.Pattern(t)
	stormy := idle(t, "stormy")
	// Each of the others opens an ordinary port again and again.
	others := harness.Default.StartMany(t, 19, harness.Spec{
		Name: harness.Name(t, "other"), Options: []string{"--network", "none"},
		Command: []string{"burst", "--same-port", "--count", "60000", "--base-port", "80", "--hold", "300ms", "--interval", "500ms"},
	})
	for _, source := range []string{ebpf, netlink, proc} {
		t.Run(source, func(t *testing.T) {
			if source == ebpf {
				requireEBPF(t)
			}
			storm(t, source, monitor, stormy, others)
		})
	}
}

func storm(t *testing.T, source, monitor string, stormy *harness.Container, others []*harness.Container) {
	recording := harness.StartRecording(t, monitor, "--source", source)
	mark(t, recording, stormy, 1000)
	var opened [][]string
	for _, other := range others {
		opened = append(opened, []string{`"opened"`, other.ID})
	}
	recording.WaitLines(t, opened...)
	begin := time.Now()
	storms := map[string]*counted{}
	for _, protocol := range []string{"tcp", "udp"} {
		runs, err := rage(stormy, protocol, stormSize)
		if err != nil {
			t.Fatal(err)
		}
		storms[protocol] = &counted{runs: runs, shapes: map[string]string{}}
	}
	end := time.Now()
	mark(t, recording, stormy, 1001) // what was reported by now is all of it
	// After a loss, the state is to be right all the same.
	recording.WaitLast(t, "closed", stormy.ID, `"port":`+itoa(stormPort)+",")
	events, gaps := readStorms(t, recording, stormy, storms, source == ebpf)
	atMost := source == proc || source == netlink && gaps > 0
	for protocol, of := range storms {
		t.Logf("%s: %d opened, %d closed, %d gaps of %d by %d processes", protocol, of.opened, of.closed, gaps, stormSize, of.runs)
		if atMost && of.opened > stormSize || !atMost && (of.opened != stormSize || gaps != 0) {
			t.Errorf("%s: %d opened and %d gaps, of %d", protocol, of.opened, gaps, stormSize)
		}
		pids := map[int]bool{}
		for _, line := range of.shapes {
			for _, process := range harness.ParseEvent(t, line).Processes {
				pids[process.PID] = true
			}
		}
		if len(pids) > of.runs || source == ebpf && len(pids) < of.runs {
			t.Errorf("%s: %d processes reported, of %d", protocol, len(pids), of.runs)
		}
	}
	for _, other := range others {
		unharmed(t, events[other.ID], other, begin, end, source)
	}
}

// rage opens and closes the port so many times, and returns how many processes
// it took. One ends where its port is in use: whoever reads /proc/<pid>/fd holds
// a socket for a moment longer than the process that has closed it.
func rage(stormy *harness.Container, protocol string, count int) (runs int, err error) {
	for left := count; left > 0; runs++ {
		_, done, err := stormy.RunLives("storm", "--protocol", protocol, "--count", itoa(left), "--port", itoa(stormPort))
		if err != nil && (!strings.Contains(err.Error(), "address already in use") || runs == 100) {
			return runs, fmt.Errorf("%d times left: %w", left, err)
		}
		left -= done
	}
	return runs, nil
}

// mark opens and closes a port, each after the step before was reported.
func mark(t *testing.T, recording *harness.Recording, container *harness.Container, port int) {
	t.Helper()
	run := container.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:"+itoa(port))
	its := []string{container.ID, `"port":` + itoa(port) + ","}
	recording.WaitLine(t, append(its, `"opened"`)...)
	run.Stop(t)
	recording.WaitLine(t, append(its, `"closed"`)...)
}

// counted is what was reported of a storm.
type counted struct {
	runs           int // processes that it took
	opened, closed int
	open           bool
	shapes         map[string]string // kinds of events, each with one of them
}

// readStorms counts the events of the storms, by protocol, and returns those of
// other ports by container, and the number of gaps.
func readStorms(t *testing.T, recording *harness.Recording, stormy *harness.Container, storms map[string]*counted, processes bool) (others map[string][]harness.Event, gaps int) {
	t.Helper()
	others = make(map[string][]harness.Event)
	known := make(map[string]*counted) // by shape
	recording.Finish(t, func(line string) {
		// A storm's lines are too many to be parsed: those that differ in no more
		// than their times are alike.
		_, rest, _ := strings.Cut(line, `,"type":`)
		shape, _, _ := strings.Cut(rest, `,"opened_at":`)
		of := known[shape]
		if of == nil {
			event := harness.ParseEvent(t, line)
			if event.Type == "gap" {
				gaps++
				t.Logf("a gap: %s", line)
				if event.Container != nil && event.Container.ID != stormy.ID {
					t.Errorf("a gap where there was no storm: %s", line)
				}
				return
			}
			if event.Container.ID != stormy.ID || event.Port != stormPort {
				others[event.Container.ID] = append(others[event.Container.ID], event)
				return
			}
			if problem := wrongProcess(event, 0, processes); problem != "" || event.Address != "127.0.0.1" {
				t.Errorf("%s: %s", cmp.Or(problem, "another address"), line)
			}
			of = storms[event.Protocol]
			known[shape], of.shapes[shape] = of, line
		}
		opens := strings.HasPrefix(shape, `"opened"`)
		if opens == of.open {
			t.Errorf("opens what is open, or closes what is not: %s", line)
		}
		if of.open = opens; opens {
			of.opened++
		} else {
			of.closed++
		}
	})
	return others, gaps
}

// unharmed fails the test unless each port that a container opened and closed
// between two moments was reported, once, whatever went on elsewhere.
func unharmed(t *testing.T, events []harness.Event, other *harness.Container, begin, end time.Time, source string) {
	t.Helper()
	lives := livesOf(t, other)
	checked := 0
	for i, life := range lives[:len(lives)-1] {
		if life.Opened.Before.Before(begin) || life.Closed.After.After(end) {
			continue
		}
		checked++
		// The events between its opening and the next one's are its own.
		var its []string
		for _, event := range events {
			if !event.Time.Before(life.Opened.Before) && event.Time.Before(lives[i+1].Opened.Before) {
				its = append(its, event.Type)
			}
		}
		if source != proc && !slices.Equal(its, []string{"opened", "closed"}) {
			t.Errorf("container %s: port open from %v to %v: reported as %q", other.Name, life.Opened.Before, life.Closed.After, its)
		}
	}
	if checked == 0 {
		t.Errorf("container %s has opened and closed nothing during the storm", other.Name)
	}
}
