package probe

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Probe is a set of attached programs and the queue they write to.
//
// Read and More belong to one goroutine. The other methods are safe for concurrent use.
// The owner calls Close.
type Probe struct {
	objects *ebpf.Collection
	ring    *ringReader
	// fallback is the reason why the cheaper hooks are not used, or nil.
	fallback error

	mu     sync.Mutex // guards hooks, closed, stats and the programs' variables
	hooks  []attached
	closed bool
	stats  Stats
	// leftOut is the number of calls for which the kernel ran no program; see Alive.
	leftOut uint64

	ledger ledger

	record []byte // of Read, as names
	names  names
}

// Open loads and attaches the programs. Every opening and closing after it is returned
// by Read, or counted for Counts, or in Stats as lost.
//
// The error wraps an *[UnsupportedError] where this kernel, its configuration or this
// process's rights do not allow it. After an error nothing stays attached.
//
// It needs CAP_SYS_ADMIN, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, in the
// initial user namespace.
func Open(options Options) (*Probe, error) {
	root, err := findCgroupRoot(options.CgroupRoot)
	if err != nil {
		return nil, err
	}
	types, err := checkKernel()
	if err != nil {
		return nil, err
	}
	fallback := functionHooksUsable(types)
	if fallback == nil {
		var p *Probe
		if p, fallback = openWith(root, types, options, functionHooks); fallback == nil {
			return p, nil
		}
	}
	p, err := openWith(root, types, options, commonHooks)
	if err != nil {
		return nil, err
	}
	p.fallback = fallback
	return p, nil
}

func openWith(root string, types *btf.Cache, options Options, hooks []string) (*Probe, error) {
	p := &Probe{names: names{}}
	if err := p.open(root, types, options, hooks); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Probe) open(root string, types *btf.Cache, options Options, hooks []string) error {
	spec, err := loadSockets()
	if err != nil {
		return err
	}
	spec.Maps["events"].MaxEntries = ringBytes(options.ringBytes)
	if err := spec.Variables["budget"].Set(uint32(cmp.Or(options.budget, defaultBudget))); err != nil {
		return fmt.Errorf("set the eBPF variable budget: %w", err)
	}
	for _, name := range slices.Concat(functionHooks, commonHooks) {
		if !slices.Contains(hooks, name) {
			delete(spec.Programs, name)
		}
	}
	if p.objects, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types}); err != nil {
		return explainLoad(spec, types, err)
	}
	if err := p.set(options.BurstLimit, options.UDPClients); err != nil {
		return err
	}
	events := p.objects.Maps["events"]
	if p.ring, err = openRing(events.FD(), events.MaxEntries()); err != nil {
		return fmt.Errorf("map the eBPF ring buffer: %w", err)
	}
	if err := p.ledger.open(spec.Maps["counts"].InnerMap, p.objects.Maps["counts"]); err != nil {
		return err
	}
	if p.hooks, err = attachAll(root, spec, p.objects); err != nil {
		return err
	}
	if slices.Equal(hooks, functionHooks) {
		return tryFunctionHooks(p.objects)
	}
	return nil
}

// loadSockets parses the compiled bpf/sockets.bpf.c.
//
//go:generate sh generate.sh .
func loadSockets() (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the built-in eBPF programs: %w", err)
	}
	return spec, nil
}

// Hooks returns the hooks in use, such as "cgroup/post_bind4".
func (p *Probe) Hooks() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, len(p.hooks))
	for i, hook := range p.hooks {
		names[i] = hook.hook
	}
	return names
}

// ringBytes returns a size that the kernel accepts: a power of two and a multiple
// of the page size.
func ringBytes(size int) uint32 {
	size = max(cmp.Or(size, defaultRingBytes), os.Getpagesize())
	return uint32(min(1<<bits.Len(uint(size-1)), 1<<30))
}

// Read waits for the next event and stores it in event. It allocates nothing
// but, once for each process name, the name.
//
// After Close it returns os.ErrClosed, also where it was waiting. A *[MalformedError]
// has skipped the record; [ErrFlushed] is the end of a [Probe.Flush]. After both, Read
// can be called again.
func (p *Probe) Read(event *Event) error {
	var err error
	switch p.record, err = p.ring.read(p.record); {
	case err == nil:
		return parseRecord(p.record, event, p.names)
	case errors.Is(err, os.ErrClosed), errors.Is(err, ErrFlushed):
		return err
	}
	return fmt.Errorf("read the eBPF ring buffer: %w", err)
}

// More reports whether more records waited when Read returned the last one.
func (p *Probe) More() bool { return p.ring.more() }

// Flush makes Read return [ErrFlushed] after it has returned every event of before
// this call. One ErrFlushed may end several calls. After Close, Flush returns
// os.ErrClosed.
func (p *Probe) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	if err := p.ring.flushTo(); err != nil {
		return fmt.Errorf("flush the eBPF ring buffer: %w", err)
	}
	return nil
}

// Fallback returns nil if the hooks are used that cost a served connection nothing,
// otherwise the reason: those used instead cost it about 0.8 µs.
func (p *Probe) Fallback() error { return p.fallback }

// Alive returns nil as long as every program is attached where Open attached it and
// runs for each call. The error names the hook that does not; Stats count the calls
// that were left out as lost, and a Probe that is opened later does not use that hook.
// It costs a system call or two for each hook.
func (p *Probe) Alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	for _, hook := range p.hooks {
		if err := hook.alive(); err != nil {
			return err
		}
	}
	var err error
	p.leftOut, err = callsLeftOut(p.objects)
	return err
}

// Close detaches the programs, ends a waiting Read, waits for Counts and releases
// everything. It drops events and counts that were not taken. Later calls do nothing.
func (p *Probe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for _, hook := range p.hooks {
		errs = append(errs, hook.link.Close())
	}
	if p.ring != nil {
		errs = append(errs, p.ring.close())
	}
	errs = append(errs, p.ledger.close())
	if p.objects != nil {
		p.objects.Close()
	}
	return errors.Join(errs...)
}

// NetnsCookie returns the cookie of the network namespace of a socket of any family,
// as in [Event]. It is unique on a host until the host is started again. Linux 5.14 or
// later.
func NetnsCookie(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, &UnsupportedError{Feature: "SO_NETNS_COOKIE", Remedy: "Linux 5.14 or later", Err: err}
	}
	if err != nil {
		return 0, fmt.Errorf("read the namespace cookie of socket %d: %w", fd, err)
	}
	return cookie, nil
}

// attached is a program on its hook.
type attached struct {
	hook string
	link link.Link
	id   ebpf.ProgramID
}

func (a attached) alive() error {
	info, err := a.link.Info()
	if err != nil {
		return fmt.Errorf("eBPF hook %s: %w", a.hook, err)
	}
	if info.Program != a.id {
		return fmt.Errorf("eBPF hook %s: its program was replaced by program %d", a.hook, info.Program)
	}
	// A link whose program another process detached has no cgroup
	// (bpf_cgroup_link_fill_link_info in kernel/bpf/cgroup.c).
	if cgroup := info.Cgroup(); cgroup != nil && cgroup.CgroupId == 0 {
		return fmt.Errorf("eBPF hook %s: the program was detached from its cgroup", a.hook)
	}
	return nil
}
