// Package harness runs portwatcher as a user does, beside containers that it starts on a
// real engine, and reads from the kernel what they listen on.
//
// Of the product's packages it uses the types of the events alone: the command line, the
// environment, the exit status and the JSON events are all that a test sees.
//
// Everything that a run of the tests makes on an engine has the label
// "test.portwatcher=1", and the run's own name in it, so that two runs do not
// meet. It is removed when its test ends, and by [Main] at the latest.
package harness

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/docker"
)

// Patience is how long a wait for something that must happen lasts. It is not
// part of what is tested: a busy machine may need it.
const Patience = time.Minute

// Label marks everything that the tests make on an engine.
const Label = "test.portwatcher=1"

// run names this run of the tests in names of containers and images.
var run = func() string {
	random := make([]byte, 3)
	rand.Read(random) // never fails
	return hex.EncodeToString(random)
}()

// Main runs the tests and removes what they left: call it from TestMain. An
// interrupt removes it too.
func Main(m *testing.M) int {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupts
		if err := cleanUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}()
	code := m.Run()
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up after the integration tests:", err)
		return max(code, 1)
	}
	return code
}

// available is why no integration test can run here, or "".
var available = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return "needs root, to read every process"
	}
	if _, err := Default.Docker("version"); err != nil {
		return fmt.Sprintf("needs a Docker engine: %v", err)
	}
	return ""
})

// Require skips the test, or fails it where PORTWATCHER_REQUIRE is 1, unless
// it runs as root beside a Docker engine.
func Require(t testing.TB) {
	t.Helper()
	if reason := available(); reason != "" {
		Unavailable(t, reason)
	}
}

// These are for the tests, and no settings of portwatcher.
var required, givenBinary = take("PORTWATCHER_REQUIRE"), take("PORTWATCHER_BINARY")

// take takes a variable out of the environment.
func take(name string) string {
	value := os.Getenv(name)
	if err := os.Unsetenv(name); err != nil {
		panic(err) // the name is a constant
	}
	return value
}

// Unavailable ends the test where something is missing: as skipped, or as failed where
// PORTWATCHER_REQUIRE is 1.
func Unavailable(t testing.TB, reason string) {
	t.Helper()
	if required == "1" {
		t.Fatalf("PORTWATCHER_REQUIRE=1, but this test %s", reason)
	}
	t.Skipf("this test %s", reason)
}

// Name returns a name for a container or a network of the test that no other
// test and no other run has.
func Name(t testing.TB, suffix string) string { return prefix(t) + suffix }

// Pattern returns the pattern for MONITOR_CONTAINERS that selects what [Name]
// names in this test, and nothing else.
func Pattern(t testing.TB) string { return prefix(t) + "*" }

func prefix(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-' // what a name may not have
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	return "pw" + run + "-" + name + "-"
}

// Eventually waits until condition returns "", and fails the test with what it returned last
// after [Patience].
func Eventually(t testing.TB, what string, condition func() string) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		problem := condition()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %s", what, Patience, problem)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Occupy has so many loops take processor time until the test ends.
func Occupy(t testing.TB, loops int) {
	t.Helper()
	groups, end, err := docker.Busy(loops)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range groups {
		running.Store(group, true)
	}
	t.Cleanup(func() {
		end()
		for _, group := range groups {
			running.Delete(group)
		}
	})
}

// Holding is [docker.Holding] for a process that must be there.
func Holding(t testing.TB, pid int) *docker.Held {
	t.Helper()
	held, err := docker.Holding(pid)
	if err != nil {
		t.Fatal(err)
	}
	return held
}
