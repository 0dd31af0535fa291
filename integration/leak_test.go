package integration

import (
	"fmt"
	"slices"
	"testing"

	"portwatcher/integration/internal/docker"
	"portwatcher/integration/internal/harness"
)

// Two hundred containers leave nothing in portwatcher when they are gone: an
// open socket would keep a namespace alive for good.
func TestNothingLeft(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	const batches, size = 10, 20
	watch := harness.StartWatch(t, harness.WatchSpec{})
	stays := start(t, "stays", 1, nil, "--tcp", "0.0.0.0:80")
	open := listening(t, stays, 1)
	watch.WaitOpen(t, open)
	comeAndGo(t, watch, "first", size) // what is made once and kept is made now
	watch.WaitOpen(t, open)
	before := settled(t, watch)
	for batch := range batches {
		comeAndGo(t, watch, fmt.Sprint("batch", batch), size)
	}
	watch.WaitOpen(t, open)
	after := settled(t, watch)
	harness.Eventually(t, "portwatcher closes its descriptors", func() string {
		after = harness.Holding(t, watch.PID()) // one may be open for a moment
		if after.Descriptors > before.Descriptors {
			return fmt.Sprintf("%d, %d before the containers: %q", after.Descriptors, before.Descriptors, after.Targets)
		}
		return ""
	})
	// The Go runtime keeps the threads of its busiest moment; one for each
	// namespace would be 200.
	if after.Threads > before.Threads+size {
		t.Errorf("%d threads, %d before the containers", after.Threads, before.Threads)
	}
	watch.Expect(t, 1+(batches+1)*size, harness.Match{Type: "opened"})
	watch.Expect(t, (batches+1)*size, harness.Match{Type: "closed"})
}

// comeAndGo starts containers, waits until their ports are reported, and
// removes them, until their ports are reported closed.
func comeAndGo(t *testing.T, watch *harness.Watch, name string, count int) {
	t.Helper()
	containers := harness.Default.StartMany(t, count, harness.Spec{
		Name: harness.Name(t, name), Options: []string{"--network", "none"},
		Command: []string{"listen", "--tcp", "0.0.0.0:80"},
	})
	var names []string
	for _, container := range containers {
		watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "0.0.0.0", 80))
		names = append(names, container.Name)
	}
	if err := harness.Default.Remove(names...); err != nil {
		t.Fatal(err)
	}
	for _, container := range containers {
		watch.WaitEvent(t, 0, harness.Closed(container.Name, "tcp", "0.0.0.0", 80))
	}
}

// settled waits until portwatcher holds one namespace only, that of the one
// container that is there, and returns what it holds.
func settled(t *testing.T, watch *harness.Watch) *docker.Held {
	t.Helper()
	var held *docker.Held
	harness.Eventually(t, "portwatcher lets the namespaces go", func() string {
		held = harness.Holding(t, watch.PID())
		if len(held.Namespaces) != 1 {
			slices.Sort(held.Namespaces)
			return fmt.Sprintf("holds %d namespaces: %q", len(held.Namespaces), held.Namespaces)
		}
		return ""
	})
	return held
}
