// Package version names the build.
package version

import "runtime"

// Version and Commit are set by the linker:
// -ldflags "-X portwatcher/internal/version.Version=1.2.3".
var (
	Version = "development"
	Commit  = "unknown"
)

// String returns version, commit and Go version in one line.
func String() string {
	return "portwatcher " + Version + " (commit " + Commit + ", " + runtime.Version() + ")"
}
