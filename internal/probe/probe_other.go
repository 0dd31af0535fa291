//go:build !linux

package probe

import (
	"errors"
	"os"
)

var errLinux = &UnsupportedError{"eBPF", "run on Linux", errors.ErrUnsupported}

// Probe cannot be had on this system.
type Probe struct{}

// Open returns an *[UnsupportedError].
func Open(Options) (*Probe, error) { return nil, errLinux }

// Read returns os.ErrClosed.
func (*Probe) Read(*Event) error { return os.ErrClosed }

// Flush returns os.ErrClosed.
func (*Probe) Flush() error { return os.ErrClosed }

// Lost returns 0.
func (*Probe) Lost() uint64 { return 0 }

// Alive returns os.ErrClosed.
func (*Probe) Alive() error { return os.ErrClosed }

// Close does nothing.
func (*Probe) Close() error { return nil }

// NetnsCookie returns an *[UnsupportedError].
func NetnsCookie(int) (uint64, error) { return 0, errLinux }
