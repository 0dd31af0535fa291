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
	"portwatcher/internal/testutil/truth"
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
	eachCountingSource(t, pausedInStorm)
}

// eachCountingSource runs a test for each source that has to account for everything, one
// after another.
func eachCountingSource(t *testing.T, test func(t *testing.T, source string)) {
	harness.Require(t)
	for _, source := range []string{ebpf, netlink} {
		t.Run(source, func(t *testing.T) {
			if source == ebpf {
				requireEBPF(t)
			}
			test(t, source)
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
	happened := map[string]truth.Count{}
	f.mark(t, recordings, 1000, happened)
	count := stormSize
	if c.busy {
		count = busyStormSize
		harness.Occupy(t, 2)
	}
	ordinary := f.startOrdinary(t)
	if err := rage(f.stormy[:c.storming], []string{"tcp", "udp"}, count, happened); err != nil {
		t.Fatal(err)
	}
	facts := ordinary.stop(t)
	f.mark(t, recordings, 1001, happened) // what happened before it is reported by now
	balanced(t, address, c.source)
	for i, recording := range recordings {
		ledger, events := readStorm(t, recording, f.stormy, 1000, 1001)
		t.Logf("portwatcher %d: %v", i, ledger)
		f.judge(t, ledger, events, happened, facts, c.source)
	}
}

// judge compares what was reported with what happened: in the storming containers by the
// sums, and in the others one by one.
func (f *fleet) judge(t *testing.T, ledger *truth.Ledger, events map[string][]truth.Event, happened map[string]truth.Count,
	facts map[string][]truth.Fact, source string) {
	t.Helper()
	precision := truth.PrecisionOf(source)
	want := maps.Clone(happened)
	for id, its := range facts {
		want[id] = want[id].Add(truth.CountFacts(its))
	}
	for _, problem := range ledger.Judge(want, precision).Problems {
		t.Error(problem)
	}
	for _, other := range f.neighbours {
		a := ledger.Account(other.ID)
		if source != proc && (a.Bursts != truth.Count{} || a.Lost > 0) {
			t.Errorf("container %s: %v in bursts, %d in gaps, want an event each", other.Name, a.Bursts, a.Lost)
		}
		if len(facts[other.ID]) == 0 {
			t.Errorf("container %s has opened and closed nothing during the storm", other.Name)
		}
		if source != proc {
			compare(t, events[other.ID], other, facts[other.ID], precision)
		}
	}
}

// mark opens and closes a port in each container, each after all portwatchers have
// reported the step before, and adds what has happened with it.
func (f *fleet) mark(t *testing.T, recordings []*harness.Recording, port int, happened map[string]truth.Count) {
	t.Helper()
	var runs []*harness.Exec
	var opened, closed [][]string
	for _, container := range f.all() {
		runs = append(runs, container.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:"+itoa(port)))
		its := []string{container.ID, `"port":` + itoa(port) + ","}
		opened, closed = append(opened, append(its, `"opened"`)), append(closed, append(slices.Clone(its), `"closed"`))
		happened[container.ID] = happened[container.ID].Add(truth.Count{Opened: 1, Closed: 1})
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
// same time, so often by each protocol, and adds what has happened with it.
func rage(stormy []*harness.Container, protocols []string, count int, happened map[string]truth.Count) error {
	var storms sync.WaitGroup
	failures := make([]error, len(stormy))
	for i, container := range stormy {
		storms.Go(func() {
			for _, protocol := range protocols {
				facts, err := container.RunFacts("storm", "--protocol", protocol, "--count", itoa(count), "--port", itoa(stormPort))
				if done := truth.CountFacts(facts).Opened; err == nil && done != uint64(count) {
					err = fmt.Errorf("%s: the storm was to open %d times, and opened %d times", container.Name, count, done)
				}
				failures[i] = errors.Join(failures[i], err)
			}
		})
	}
	storms.Wait()
	for _, container := range stormy {
		sum := uint64(count * len(protocols))
		happened[container.ID] = happened[container.ID].Add(truth.Count{Opened: sum, Closed: sum})
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
func (o *ordinary) stop(t *testing.T) map[string][]truth.Fact {
	t.Helper()
	facts := map[string][]truth.Fact{}
	for i, run := range o.runs {
		facts[o.neighbours[i].ID] = run.Stop(t)
	}
	return facts
}

// readStorm ends a portwatcher and returns the ledger of what it reported, and the events
// of its containers but of those that storm: these open the storm's port and these others.
func readStorm(t *testing.T, recording *harness.Recording, stormy []*harness.Container, ports ...uint16) (*truth.Ledger, map[string][]truth.Event) {
	t.Helper()
	ports = append(ports, stormPort)
	others := map[string][]truth.Event{}
	pids := map[string]map[int]bool{} // that stormed, by container
	ledger := recording.Finish(t, func(e truth.Event) {
		switch {
		case e.Type == "gap":
			t.Logf("a gap: %s", e.Line)
		case e.Container == nil:
		case !slices.ContainsFunc(stormy, func(c *harness.Container) bool { return c.ID == e.Container.ID }):
			others[e.Container.ID] = append(others[e.Container.ID], e)
		default:
			all := []uint16{e.Port}
			if e.Burst != nil {
				all = e.Ports
			}
			foreign := func(port uint16) bool { return !slices.Contains(ports, port) }
			if slices.ContainsFunc(all, foreign) || e.Address.IsValid() && e.Address.String() != "127.0.0.1" {
				t.Errorf("another port: %s", e.Line)
			}
			for _, process := range e.Processes {
				if problem := truth.CheckWorkload(&process); problem != "" {
					t.Errorf("%s: %s", problem, e.Line)
				}
				if pids[e.Container.ID] == nil {
					pids[e.Container.ID] = map[int]bool{}
				}
				pids[e.Container.ID][process.PID] = true
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
	happened := map[string]truth.Count{}
	fleet.mark(t, recordings, 1000, happened)
	ordinary := fleet.startOrdinary(t)
	storm := make(chan error, 1)
	go func() { storm <- rage(fleet.stormy, []string{"tcp", "udp"}, count, happened) }()
	recording.WaitReported(t, 1000)
	recording.Pause(t, 5*time.Second)
	if err := <-storm; err != nil {
		t.Fatal(err)
	}
	facts := ordinary.stop(t)
	fleet.mark(t, recordings, 1001, happened)
	balanced(t, address, source)
	ledger, events := readStorm(t, recording, fleet.stormy, 1000, 1001)
	t.Logf("%v", ledger)
	fleet.judge(t, ledger, events, happened, facts, source)
}

// mark opens and closes a port, each after the step before was reported.
func mark(t *testing.T, recording *harness.Recording, container *harness.Container, port int) {
	t.Helper()
	f := &fleet{stormy: []*harness.Container{container}}
	f.mark(t, []*harness.Recording{recording}, port, map[string]truth.Count{})
}
