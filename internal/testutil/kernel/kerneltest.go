// Package kernel helps tests that need the real kernel: it makes network
// namespaces, processes and cgroups, and says why a test cannot run. It is test
// support only.
package kernel

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

// patience is how long what must happen may take: no healthy machine needs it.
const patience = 20 * time.Second

// Eventually waits until f returns true, and fails the test after 20 s.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	Await(t, what, func() string {
		if f() {
			return ""
		}
		return "it is not so"
	})
}

// Await waits until f returns nothing. After 20 s it fails the test with what f
// returned last, which says how things are instead.
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
		time.Sleep(2 * time.Millisecond) // between two looks
	}
}
