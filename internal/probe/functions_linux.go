package probe

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The beginning and end of TCP listeners, and the end of UDP sockets, are observed in one of
// two ways. The programs of kernel functions cost a connection nothing. Where they cannot be
// used, the tracepoint of all state changes runs about ten times for each connection, and
// the hook of all releases once.
var (
	functionHooks = []string{"udp_unhash", "tcp_listen_stop", "tcp_listen"}
	commonHooks   = []string{"udp_release", "tcp_state"}
)

// functionHooksLeaveOut means that the kernel left out calls of the function hooks, so that
// this process does not use them any more. That happens where the kernel preempts a
// running program, and another process calls the same program
// (__bpf_prog_enter_recur in kernel/bpf/trampoline.c): with preempt=full and eight
// threads, 7,400 of 80,000. Programs of a tracepoint are not preempted. See
// notPreempted; the preemption mode can change while the kernel runs.
var functionHooksLeaveOut atomic.Bool

// functionHooksUsable returns nil where programs can be attached to kernel functions and
// no call is left out. It tries a program that does nothing.
func functionHooksUsable(types *btf.Cache) error {
	if functionHooksLeaveOut.Load() {
		return errors.New("the kernel left out calls of programs of its functions before")
	}
	if err := notPreempted(); err != nil {
		return err
	}
	const name = "trial"
	objects, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{name: {
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "inet_csk_listen_start",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL",
	}}}, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return fmt.Errorf("load a program for a kernel function: %w", err)
	}
	defer objects.Close()
	at, err := link.AttachTracing(link.TracingOptions{Program: objects.Programs[name], AttachType: ebpf.AttachTraceFExit})
	if err != nil {
		return fmt.Errorf("attach a program to a kernel function: %w", err)
	}
	return at.Close()
}

// tryFunctionHooks returns nil if all function hooks run: for a TCP listener and a UDP
// socket that it opens and closes, which are no events. A kernel whose compiler inlined the
// functions attaches the programs and never runs them.
func tryFunctionHooks(objects *ebpf.Collection) error {
	for _, trial := range []struct {
		protocol string
		kind     int
		want     Kind
	}{{"TCP", unix.SOCK_STREAM, Opened | Closed}, {"UDP", unix.SOCK_DGRAM, Closed}} {
		if err := objects.Variables["trial_seen"].Set(uint32(0)); err != nil {
			return fmt.Errorf("set the eBPF variable trial_seen: %w", err)
		}
		if err := openOnTrial(objects, trial.kind); err != nil {
			return fmt.Errorf("open a %s socket for trial: %w", trial.protocol, err)
		}
		var seen uint32
		if err := objects.Variables["trial_seen"].Get(&seen); err != nil {
			return fmt.Errorf("read the eBPF variable trial_seen: %w", err)
		}
		if want := uint32(trial.want); seen != want {
			return fmt.Errorf("the hooks of kernel functions reported %d of a %s socket, want %d", seen, trial.protocol, want)
		}
	}
	return nil
}

// openOnTrial opens a socket that can be spoken to, and closes it. The programs do not report
// it.
func openOnTrial(objects *ebpf.Collection, kind int) (err error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err == nil {
		err = objects.Variables["trial_cookie"].Set(cookie)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 1)
	}
	return err
}

// callsLeftOut returns how many calls of the function hooks the kernel left out. If there
// are any it returns an error too, and no later Probe uses these hooks.
func callsLeftOut(objects *ebpf.Collection) (uint64, error) {
	var calls uint64
	for _, name := range functionHooks {
		program := objects.Programs[name]
		if program == nil {
			continue
		}
		stats, err := program.Stats()
		if err != nil {
			return calls, fmt.Errorf("eBPF program %s: read its statistics: %w", name, err)
		}
		calls += stats.RecursionMisses
	}
	if calls > 0 {
		functionHooksLeaveOut.Store(true)
		return calls, fmt.Errorf("eBPF programs of kernel functions: the kernel left out %d calls", calls)
	}
	return 0, nil
}
