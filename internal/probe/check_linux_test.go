package probe

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemedyFor: an old kernel's age is to blame before anything else.
func TestRemedyFor(t *testing.T) {
	other := errors.New("program too large")
	for _, test := range []struct {
		release string
		err     error
		want    string
	}{
		{"5.10.0-28-amd64", unix.EPERM, remedyAge}, // the limit of locked memory
		{"5.10.0-28-amd64", unix.EINVAL, remedyAge},
		{"5.13.19", other, remedyAge},
		{"4.18.0-553.el8_10.x86_64", unix.EACCES, remedyAge},
		{"5.14.0-427.el9.x86_64", unix.EPERM, remedyRights},
		{"6.1.0-56-amd64", fmt.Errorf("load: %w", unix.EACCES), remedyRights},
		{"6.1.0-56-amd64", unix.EINVAL, remedyKernel},
		{"10.2", other, remedyKernel},
		{"", unix.EPERM, remedyRights},
		{"unknown", other, remedyKernel},
	} {
		if got := remedyFor(test.release, test.err); got != test.want {
			t.Errorf("Linux %q, error %v: remedy %q, want %q", test.release, test.err, got, test.want)
		}
	}
}

func TestKernelRelease(t *testing.T) {
	release, err := KernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	if !OlderThan(release, 1000, 0) || OlderThan(release, 1, 0) {
		t.Errorf("release %q was not understood", release)
	}
}
