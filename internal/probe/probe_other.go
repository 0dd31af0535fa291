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

// Configure returns os.ErrClosed.
func (*Probe) Configure(int, bool) error { return os.ErrClosed }

// Stats returns nothing.
func (*Probe) Stats() Stats { return Stats{} }

// Counts returns dst and os.ErrClosed.
func (*Probe) Counts(dst []Count) ([]Count, error) { return dst, os.ErrClosed }

// Hooks returns nothing.
func (*Probe) Hooks() []string { return nil }

// Fallback returns an *[UnsupportedError].
func (*Probe) Fallback() error { return errLinux }

// Alive returns os.ErrClosed.
func (*Probe) Alive() error { return os.ErrClosed }

// Close does nothing.
func (*Probe) Close() error { return nil }

// NetnsCookie returns an *[UnsupportedError].
func NetnsCookie(int) (uint64, error) { return 0, errLinux }
