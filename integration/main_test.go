// Package integration runs portwatcher beside real containers on a real engine and
// compares what it reports with what the workload did and what the kernel shows.
//
// The tests need root and a Docker engine; see [harness.Require].
package integration

import (
	"fmt"
	"math/rand/v2"
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

// loopback returns an address of this host on which nothing else listens: there are so many
// that no port has to be found first.
func loopback(port int) string {
	return fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.N(254), rand.N(256), 1+rand.N(254), port)
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in the place of another, as one step.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	write(t, path+".new", string(content))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// sameLines fails the test where lines are not what they are to be, byte by
// byte, in the same order.
func sameLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("%s: %d lines, want %d; the first that is missing: %s", what, len(got), len(want), want[i])
		case i >= len(want):
			t.Fatalf("%s: %d lines, want %d; the first that is too much: %s", what, len(got), len(want), got[i])
		case got[i] != want[i]:
			t.Fatalf("%s: line %d of %d is\n%s\nwant\n%s", what, i+1, len(want), got[i], want[i])
		}
	}
}
