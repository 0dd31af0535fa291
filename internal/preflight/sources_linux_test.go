package preflight

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/probe"
	"portwatcher/internal/sockdiag"
)

// Where a module of sock_diag is missing the remedy names it, and no other source is
// blamed.
func TestModuleIsMissing(t *testing.T) {
	missing := fmt.Errorf("dump: %w", &sockdiag.UnsupportedError{Feature: "tcp sockets", Remedy: "modprobe tcp_diag", Err: unix.ENOENT})
	for source, state := range map[string]State{"auto": Degraded, "ebpf": Degraded, "netlink": Failed} {
		if r := netlinkResult(Options{Source: source}, missing); r.State != state || r.Remedy != "modprobe tcp_diag" || !strings.HasPrefix(r.Detail, "tcp sockets") {
			t.Errorf("--source %s: %+v, want %s", source, r, state)
		}
	}
	if r := destroyResult(Result{Name: nameDestroy, State: OK}, missing); r.State != Degraded || r.Remedy != "modprobe tcp_diag" {
		t.Errorf("%+v, want the module in the remedy", r)
	}
}

func TestNetlinkIsDenied(t *testing.T) {
	for _, err := range []error{unix.EPERM, unix.EACCES} {
		if r := netlinkResult(Options{Source: "auto"}, fmt.Errorf("open: %w", err)); r.State != Degraded || r.Remedy != remedyDenied {
			t.Errorf("%v: %+v", err, r)
		}
		if r := destroyResult(Result{}, err); r.State != Degraded || r.Remedy != remedyDenied {
			t.Errorf("%v: %+v", err, r)
		}
	}
}

// On an old kernel the reason is its age, and before 5.11 the limit of locked memory,
// whatever remedy the error brings.
func TestEBPFOnOldKernels(t *testing.T) {
	refused := &probe.UnsupportedError{Feature: "bpf(2)", Remedy: "cap_add: [SYS_ADMIN]", Err: unix.EPERM}
	const unlimited = uint64(unix.RLIM_INFINITY)
	for _, test := range []struct {
		release        string
		lockable       uint64
		err            error
		old, memory, k bool // the detail blames age, memory; the remedy names capabilities
	}{
		{"5.10.0-28-amd64", 64 << 10, refused, true, true, false},
		{"5.10.0-28-amd64", unlimited, refused, true, false, false},
		{"4.18.0-553.el8_10.x86_64", 8 << 20, errors.New("operation not permitted"), true, true, false},
		{"5.13.19", 64 << 10, refused, true, false, false},
		{"5.14.0-427.el9", 64 << 10, refused, false, false, true},
		{"6.12.1", 64 << 10, refused, false, false, true},
		{"unknown", 64 << 10, refused, false, false, true},
	} {
		k := runningKernel{release: test.release, lockable: test.lockable}
		r := ebpfResult(Options{Source: "auto"}, test.err, k)
		old, memory := strings.Contains(r.Detail, test.release+" is too old"), strings.Contains(r.Detail+r.Remedy, "memlock")
		if old != test.old || memory != test.memory || strings.Contains(r.Remedy, "cap_add") != test.k || r.State != Degraded {
			t.Errorf("%s, %d lockable: %+v", test.release, test.lockable, r)
		}
		if memory && !strings.Contains(r.Detail, fmt.Sprintf("%d KiB", test.lockable>>10)) {
			t.Errorf("%s: %q does not have the limit", test.release, r.Detail)
		}
		if r := ebpfResult(Options{Source: "ebpf"}, test.err, k); r.State != Failed {
			t.Errorf("%s with --source ebpf: %+v", test.release, r)
		}
	}
	if r := ebpfResult(Options{}, nil, runningKernel{release: "5.10"}); r.State != OK || r.Remedy != "" {
		t.Errorf("what works: %+v", r)
	}
	if k := thisKernel(); !probe.OlderThan(k.release, 1000, 0) || probe.OlderThan(k.release, 4, 0) {
		t.Errorf("this kernel is %+v", k)
	}
}
