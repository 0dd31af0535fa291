// Package integration runs portwatcher beside real containers on a real engine and
// compares what it reports with what the workload did and what the kernel shows.
//
// The tests need root and a Docker engine; see [harness.Require].
package integration

import (
	"os"
	"strconv"
	"testing"

	"portwatcher/integration/internal/harness"
)

func TestMain(m *testing.M) {
	// Of many at a time only one could serve at the default address.
	if err := os.Setenv("PORTWATCHER_LISTEN", ""); err != nil {
		panic(err)
	}
	os.Exit(harness.Main(m))
}

// start starts a container of the workload that listens, and waits until it has opened its
// ports, as many as there are lines of facts.
func start(t *testing.T, name string, ports int, options []string, arguments ...string) *harness.Container {
	t.Helper()
	container := harness.Default.Start(t, harness.Spec{
		Name: harness.Name(t, name), Options: options, Command: append([]string{"listen"}, arguments...),
	})
	container.WaitLogs(t, ports, `"action":"opened"`)
	return container
}

// idle starts a container of the workload that opens nothing.
func idle(t *testing.T, name string, options ...string) *harness.Container {
	t.Helper()
	return harness.Default.Start(t, harness.Spec{
		Name: harness.Name(t, name), Options: options, Command: []string{"pause"},
	})
}

func itoa(number int) string { return strconv.Itoa(number) }

// listening is what a container listens on, with the exposure that its own published ports
// give. It fails the test unless there are this many listeners.
func listening(t *testing.T, container *harness.Container, count int) []harness.Listener {
	t.Helper()
	listeners := harness.Publish(t, container, harness.Listening(t, container))
	if len(listeners) != count {
		t.Fatalf("container %s listens on %d endpoints, want %d: %q",
			container.Name, len(listeners), count, harness.Lines(listeners))
	}
	return listeners
}
