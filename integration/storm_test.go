package integration

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

const (
	// stormSize is how often a storming container opens and closes a port of each
	// protocol, and busyStormSize how often on a busy machine.
	stormSize, busyStormSize = 100_000, 10_000
	stormPort                = 20000
	// Of stormFleet containers at most maxStorming storm.
	stormFleet, maxStorming = 20, 5
)

// stormCase is how a storm is made, and what reports it.
type stormCase struct {
	source   string
	storming int
	// busy has two loops take both processors, and a second portwatcher beside.
	busy bool
}

func (c stormCase) String() string {
	if c.busy {
		return fmt.Sprintf("%s, %d storming, busy", c.source, c.storming)
	}
	return fmt.Sprintf("%s, %d storming", c.source, c.storming)
}

// Some of twenty containers open and close a port as fast as they can: each opening and
// closing is accounted for, whatever else the machine does, and those of the others are
// reported one by one.
//
// It does not run beside other tests, which it would slow down.
func TestStorm(t *testing.T) {
	harness.Require(t)
	fleet := newFleet(t)
	for _, c := range []stormCase{
		{ebpf, 1, false}, {netlink, 1, false}, {proc, 1, false},
		{ebpf, 1, true}, {ebpf, maxStorming, true},
		{netlink, 1, true}, {netlink, maxStorming, true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			if c.source == ebpf {
				requireEBPF(t)
			}
			fleet.storm(t, c)
		})
	}
}

// Stopped for 5 s in the middle of a storm, as by a snapshot of a virtual machine,
// portwatcher accounts for all that happened meanwhile.
func TestPausedInStorm(t *testing.T) {
	harness.Require(t)
	for _, source := range []string{ebpf, netlink} {
		t.Run(source, func(t *testing.T) {
			if source == ebpf {
				requireEBPF(t)
			}
			pausedInStorm(t, source)
		})
	}
}

// fleet are the containers of a storm.
type fleet struct {
	monitor            string
	stormy, neighbours []*harness.Container
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	all := harness.Default.StartMany(t, stormFleet, harness.Spec{
		Name: harness.Name(t, "fleet"), Options: []string{"--network", "none"}, Command: []string{"pause"},
	})
	return &fleet{harness.Pattern(t), all[:maxStorming], all[maxStorming:]}
}

func (f *fleet) all() []*harness.Container { return slices.Concat(f.stormy, f.neighbours) }

func (f *fleet) storm(t *testing.T, c stormCase) {
	address := loopback(9888)
	recordings := []*harness.Recording{harness.StartRecording(t, f.monitor, "--source", c.source, "--listen", address)}
	if c.busy {
		recordings = append(recordings, harness.StartRecording(t, f.monitor, "--source", c.source))
	}
	truth := map[string]harness.Happened{}
	f.mark(t, recordings, 1000, truth)
	count := stormSize
	if c.busy {
		count = busyStormSize
		harness.Occupy(t, 2)
	}
	ordinary := f.startOrdinary(t)
	if err := rage(f.stormy[:c.storming], []string{"tcp", "udp"}, count, truth); err != nil {
		t.Fatal(err)
	}
	lives := ordinary.stop(t)
	f.mark(t, recordings, 1001, truth) // what happened before it is reported by now
	balanced(t, address, c.source)
	for i, recording := range recordings {
		ledger, events := readStorm(t, recording, f.stormy, 1000, 1001)
		t.Logf("portwatcher %d: %v", i, ledger)
		f.judge(t, ledger, events, truth, lives, c.source)
	}
}

// judge holds what was reported against what happened: in the storming containers by the
// sums, and in the others one by one.
func (f *fleet) judge(t *testing.T, ledger *harness.Ledger, events map[string][]harness.Event, truth map[string]harness.Happened,
	lives map[string][]harness.Life, source string) {
	t.Helper()
	if source == proc { // what scans can see of it: nothing that is false
		ledger.Unnumbered++
	}
	want := maps.Clone(truth)
	for id, its := range lives {
		want[id] = want[id].Add(harness.Happened{Opened: uint64(len(its)), Closed: uint64(len(its))})
	}
	for _, problem := range ledger.Judge(want, source == ebpf) {
		t.Error(problem)
	}
	for _, other := range f.neighbours {
		a := ledger.Account(other.ID)
		if source != proc && (a.Bursts != harness.Happened{} || a.Lost > 0) {
			t.Errorf("container %s: %v in bursts, %d in gaps, want an event each", other.Name, a.Bursts, a.Lost)
		}
		unharmed(t, events[other.ID], other, lives[other.ID], demand[source])
	}
	for _, problem := range ledger.Problems[:min(10, len(ledger.Problems))] {
		t.Errorf("%d events are wrong: %s", len(ledger.Problems), problem)
	}
}

// mark opens and closes a port in each container, each after all portwatchers have
// reported the step before, and adds what has happened with it to the truth.
func (f *fleet) mark(t *testing.T, recordings []*harness.Recording, port int, truth map[string]harness.Happened) {
	t.Helper()
	var runs []*harness.Exec
	var opened, closed [][]string
	for _, container := range f.all() {
		runs = append(runs, container.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:"+itoa(port)))
		its := []string{container.ID, `"port":` + itoa(port) + ","}
		opened, closed = append(opened, append(its, `"opened"`)), append(closed, append(slices.Clone(its), `"closed"`))
		truth[container.ID] = truth[container.ID].Add(harness.Happened{Opened: 1, Closed: 1})
	}
	for _, recording := range recordings {
		recording.WaitLines(t, opened...)
	}
	for _, run := range runs {
		run.Stop(t)
	}
	for _, recording := range recordings {
		recording.WaitLines(t, closed...)
	}
}

// rage has the containers open and close their ports as fast as they can, all at the
// same time, so often by each protocol, and adds what has happened with it to the truth.
func rage(stormy []*harness.Container, protocols []string, count int, truth map[string]harness.Happened) error {
	var storms sync.WaitGroup
	failures := make([]error, len(stormy))
	for i, container := range stormy {
		storms.Go(func() {
			for _, protocol := range protocols {
				_, done, err := container.RunLives("storm", "--protocol", protocol, "--count", itoa(count), "--port", itoa(stormPort))
				if err == nil && done != count {
					err = fmt.Errorf("%s: the storm was to open %d times, and says %d", container.Name, count, done)
				}
				failures[i] = errors.Join(failures[i], err)
			}
		})
	}
	storms.Wait()
	for _, container := range stormy {
		sum := uint64(count * len(protocols))
		truth[container.ID] = truth[container.ID].Add(harness.Happened{Opened: sum, Closed: sum})
	}
	return errors.Join(failures...)
}

// ordinary is what the neighbours of a storm do.
type ordinary struct {
	neighbours []*harness.Container
	runs       []*harness.Exec
}

// startOrdinary has each neighbour open an ordinary port again and again, TCP or UDP.
func (f *fleet) startOrdinary(t *testing.T) *ordinary {
	t.Helper()
	o := &ordinary{neighbours: f.neighbours}
	for i, neighbour := range f.neighbours {
		o.runs = append(o.runs, neighbour.Exec(t, "burst", "--protocol", []string{"tcp", "udp"}[i%2], "--same-port", "--count", "60000",
			"--base-port", "80", "--hold", "300ms", "--interval", "500ms"))
	}
	return o
}

// stop returns what each has opened and closed, by container id.
func (o *ordinary) stop(t *testing.T) map[string][]harness.Life {
	t.Helper()
	lives := map[string][]harness.Life{}
	for i, run := range o.runs {
		lives[o.neighbours[i].ID] = run.StopLives(t)
	}
	return lives
}

// readStorm ends a portwatcher and returns the accounts of what it reported, and the
// events of its containers but of those that storm: these open the storm's port and
// these others.
func readStorm(t *testing.T, recording *harness.Recording, stormy []*harness.Container, ports ...int) (*harness.Ledger, map[string][]harness.Event) {
	t.Helper()
	ports = append(ports, stormPort)
	ledger, others := harness.NewLedger(), map[string][]harness.Event{}
	pids := map[string]map[int]bool{} // that stormed, by container
	recording.Finish(t, func(line string) {
		e := ledger.Take(line)
		switch {
		case e.Type == "gap":
			t.Logf("a gap: %s", line)
		case e.Container == nil:
		case !slices.ContainsFunc(stormy, func(c *harness.Container) bool { return c.ID == e.Container.ID }):
			others[e.Container.ID] = append(others[e.Container.ID], e)
		default:
			var all []int // that it names
			if all = e.Ports; e.Type != "burst" {
				all = []int{e.Port}
			}
			foreign := func(port int) bool { return !slices.Contains(ports, port) }
			if slices.ContainsFunc(all, foreign) || e.Address != "127.0.0.1" && (e.Type != "burst" || e.Address != "") {
				t.Errorf("another port: %s", line)
			}
			if len(e.Processes) > 0 {
				if problem := wrongProcess(e, 0, false); problem != "" {
					t.Errorf("%s: %s", problem, line)
				}
				if pids[e.Container.ID] == nil {
					pids[e.Container.ID] = map[int]bool{}
				}
				pids[e.Container.ID][e.Processes[0].PID] = true
			}
		}
	})
	for id, its := range pids { // a storm of each protocol, and what opens the others
		if len(its) > 1+len(ports) {
			t.Errorf("container %s: %d processes are reported, of %d", id, len(its), 1+len(ports))
		}
	}
	return ledger, others
}

// unharmed fails the test unless each port that a container opened and closed was
// reported, once and in order, whatever went on elsewhere.
func unharmed(t *testing.T, events []harness.Event, other *harness.Container, lives []harness.Life, want every) {
	t.Helper()
	var its []harness.Event
	for _, e := range events {
		if e.Port == 80 {
			its = append(its, e)
		}
	}
	if len(lives) == 0 {
		t.Errorf("container %s has opened and closed nothing during the storm", other.Name)
	}
	if want == some {
		return
	}
	if len(its) != 2*len(lives) {
		t.Errorf("container %s: %d events of %d ports that were opened and closed", other.Name, len(its), len(lives))
		return
	}
	for i, life := range lives {
		opened, closed := its[2*i], its[2*i+1]
		if opened.Type != "opened" || closed.Type != "closed" || opened.Protocol != life.Protocol || opened.Address != life.Address {
			t.Errorf("container %s: %+v is reported as %s and %s", other.Name, life, opened.Line, closed.Line)
		} else if problem := disagrees(opened, closed, life, want); problem != "" {
			t.Errorf("container %s: %s: %s %s, %+v", other.Name, problem, opened.Line, closed.Line, life)
		}
	}
}

func pausedInStorm(t *testing.T, source string) {
	const count = 60_000
	fleet := &fleet{monitor: harness.Pattern(t)}
	all := harness.Default.StartMany(t, 3, harness.Spec{
		Name: harness.Name(t, "paused"), Options: []string{"--network", "none"}, Command: []string{"pause"},
	})
	fleet.stormy, fleet.neighbours = all[:1], all[1:]
	address := loopback(9888)
	recording := harness.StartRecording(t, fleet.monitor, "--source", source, "--listen", address)
	recordings := []*harness.Recording{recording}
	truth := map[string]harness.Happened{}
	fleet.mark(t, recordings, 1000, truth)
	ordinary := fleet.startOrdinary(t)
	storm := make(chan error, 1)
	go func() { storm <- rage(fleet.stormy, []string{"tcp", "udp"}, count, truth) }()
	recording.WaitReported(t, 1000)
	recording.Pause(t, 5*time.Second)
	if err := <-storm; err != nil {
		t.Fatal(err)
	}
	lives := ordinary.stop(t)
	fleet.mark(t, recordings, 1001, truth)
	balanced(t, address, source)
	ledger, events := readStorm(t, recording, fleet.stormy, 1000, 1001)
	t.Logf("%v", ledger)
	fleet.judge(t, ledger, events, truth, lives, source)
}

// mark opens and closes a port, each after the step before was reported.
func mark(t *testing.T, recording *harness.Recording, container *harness.Container, port int) {
	t.Helper()
	f := &fleet{stormy: []*harness.Container{container}}
	f.mark(t, []*harness.Recording{recording}, port, map[string]harness.Happened{})
}
