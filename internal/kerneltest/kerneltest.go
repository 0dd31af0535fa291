// Package kerneltest helps tests that need the real kernel: it makes network
// namespaces, processes and cgroups, and says why a test cannot run. It is test
// support only.
package kerneltest

import (
	"os"
	"testing"
	"time"
)

// Skip skips a test whose surroundings are missing, or fails it where
// PORTWATCHER_REQUIRE=1 says that they must be there.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("PORTWATCHER_REQUIRE") == "1" {
		t.Fatalf("%s (and PORTWATCHER_REQUIRE=1)", why)
	}
	t.Skip(why)
}

// RequireRoot skips a test by [Skip] unless it runs as root, which it needs to
// do what whatFor says.
func RequireRoot(t testing.TB, whatFor string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root to "+whatFor)
	}
}

// Eventually waits until f returns true, and fails the test after a deadline
// that no healthy machine needs.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
