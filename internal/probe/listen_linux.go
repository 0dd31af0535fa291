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

// TCP is watched in one of two ways. The functions that begin and end a listener
// cost a connection nothing; the tracepoint of all state changes runs about ten times
// for each.
var (
	listenHooks = []string{"tcp_listen_stop", "tcp_listen"}
	stateHook   = []string{"tcp_state"}
)

// listenHooksLeaveOut means that the kernel left out calls of the listen hooks, so that
// this process does not use them any more. That happens where the kernel preempts a
// running program, and another process calls the same program
// (__bpf_prog_enter_recur in kernel/bpf/trampoline.c): with preempt=full and eight
// threads, 7,400 of 80,000. Programs of a tracepoint are not preempted. See
// notPreempted; the preemption mode can change while the kernel runs.
var listenHooksLeaveOut atomic.Bool

// listenHooksUsable returns nil where programs can be attached to kernel functions and
// no call is left out. It tries a program that does nothing.
func listenHooksUsable(types *btf.Cache) error {
	if listenHooksLeaveOut.Load() {
		return errors.New("the kernel left out calls of its listen functions before")
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

// tryListenHooks opens a listener and returns nil if both hooks ran for it. A kernel
// whose compiler inlined the functions attaches the programs and never runs them. The
// programs do not report this listener.
func tryListenHooks(objects *ebpf.Collection) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err == nil {
		err = objects.Variables["trial_cookie"].Set(cookie)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("open a listener for trial: %w", err)
	}
	var seen uint32
	if err := objects.Variables["trial_seen"].Get(&seen); err != nil {
		return fmt.Errorf("read the eBPF variable trial_seen: %w", err)
	}
	if want := uint32(Opened | Closed); seen != want {
		return fmt.Errorf("the hooks of listen reported %d of a listener, want %d", seen, want)
	}
	return nil
}

// callsLeftOut returns how many calls of the listen hooks the kernel left out. If there
// are any it returns an error too, and no later Probe uses these hooks.
func callsLeftOut(objects *ebpf.Collection) (uint64, error) {
	var calls uint64
	for _, name := range listenHooks {
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
		listenHooksLeaveOut.Store(true)
		return calls, fmt.Errorf("eBPF hooks of listen: the kernel left out %d calls", calls)
	}
	return 0, nil
}
