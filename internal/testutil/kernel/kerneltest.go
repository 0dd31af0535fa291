// Package kernel helps tests that need the real kernel: it makes network
// namespaces, processes and cgroups, and skips tests that cannot run. Whatever it makes
// ends with the test.
package kernel

import (
	"os"
	"testing"
	"time"
)

// Skip skips a test that cannot run here, or fails it if PORTWATCHER_REQUIRE is 1.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("PORTWATCHER_REQUIRE") == "1" {
		t.Fatalf("%s (and PORTWATCHER_REQUIRE=1)", why)
	}
	t.Skip(why)
}

// RequireRoot skips a test by [Skip] unless it runs as root; whatFor is the reason.
func RequireRoot(t testing.TB, whatFor string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root to "+whatFor)
	}
}

// patience is more than any healthy machine needs.
const patience = 20 * time.Second

// Eventually waits until f returns true, and fails the test after 20 s.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	Await(t, what, func() string {
		if f() {
			return ""
		}
		return "it has not happened"
	})
}

// Await waits until f returns an empty string. After 20 s it fails the test with the
// last string, which describes the state.
func Await(t testing.TB, what string, f func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		instead := f()
		if instead == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s: %s", patience, what, instead)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
