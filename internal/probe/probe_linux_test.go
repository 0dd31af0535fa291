package probe

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

func mustOpen(t testing.TB, options Options) *Probe {
	t.Helper()
	requireRoot(t)
	p, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestCloseEndsRead(t *testing.T) {
	p := mustOpen(t, Options{})
	result := make(chan error)
	go func() {
		for {
			var e Event
			if err := p.Read(&e); err != nil {
				result <- err
				return
			}
		}
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-result:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read returned %v, want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Read waits after Close")
	}
	var e Event
	if err := p.Read(&e); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close returned %v, want os.ErrClosed", err)
	}
	if _, err := p.Counts(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Counts after Close returned %v, want os.ErrClosed", err)
	}
	if err := p.Configure(0, true); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Configure after Close returned %v, want os.ErrClosed", err)
	}
	if err := p.Alive(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Alive after Close returned %v, want os.ErrClosed", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_ = p.Stats() // must not touch memory that is gone
}

// TestAlive detaches a program as someone else would, through its link's id.
func TestAlive(t *testing.T) {
	p := mustOpen(t, Options{})
	if err := p.Alive(); err != nil {
		t.Fatal(err)
	}
	ofCgroup := func(h attached) bool { return strings.HasPrefix(h.hook, "cgroup/") } // a link that can be detached
	hook := p.hooks[slices.IndexFunc(p.hooks, ofCgroup)]
	info, err := hook.link.Info()
	if err != nil {
		t.Fatal(err)
	}
	other, err := link.NewFromID(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.(interface{ Detach() error }).Detach(); err != nil {
		t.Fatal(err)
	}
	if err := p.Alive(); err == nil || !strings.Contains(err.Error(), hook.hook) {
		t.Errorf("Alive returned %v, want an error that names %s", err, hook.hook)
	}
}

// TestNothingLeft: open and close again and again leaves no descriptor behind.
func TestNothingLeft(t *testing.T) {
	requireRoot(t)
	round := func() {
		p, err := Open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	round()
	before := kernel.Descriptors(t)
	for range 5 {
		round()
	}
	if after := kernel.Descriptors(t); after != before {
		t.Errorf("%d descriptors after, %d before", after, before)
	}
}

func TestUnsupported(t *testing.T) {
	requireRoot(t)
	root, err := findCgroupRoot("")
	if err != nil {
		t.Fatal(err)
	}
	inside, _ := kernel.Cgroup(t, root, "portwatcher-test-"+strings.ToLower(t.Name()))
	for name, dir := range map[string]string{
		"no cgroup2":              t.TempDir(),
		"not there":               filepath.Join(t.TempDir(), "none"),
		"a cgroup, not the root":  inside,
		"a file system of others": "/proc",
	} {
		p, err := Open(Options{CgroupRoot: dir})
		var unsupported *UnsupportedError
		if !errors.As(err, &unsupported) || unsupported.Feature != "cgroup v2 hierarchy" || unsupported.Remedy == "" {
			t.Errorf("%s: got %v, %v, want an *UnsupportedError for the cgroup v2 hierarchy", name, p, err)
		}
	}
}

// TestExplainLoad: the error names the hook whose program the kernel refuses.
func TestExplainLoad(t *testing.T) {
	requireRoot(t)
	spec, err := loadSockets()
	if err != nil {
		t.Fatal(err)
	}
	types, err := checkKernel()
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs["tcp_state"].AttachTo = "no_such_tracepoint"
	for _, name := range functionHooks {
		delete(spec.Programs, name)
	}
	_, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types})
	if err == nil {
		t.Fatal("a program for a tracepoint that does not exist was loaded")
	}
	var unsupported *UnsupportedError
	if err := explainLoad(spec, types, err); !errors.As(err, &unsupported) ||
		unsupported.Feature != "tp_btf/inet_sock_set_state" || unsupported.Remedy != remedyKernel {
		t.Errorf("got %v, want an *UnsupportedError for tp_btf/inet_sock_set_state", err)
	}
}

// TestAttachFails: the error names the hook, and nothing stays attached.
func TestAttachFails(t *testing.T) {
	p := mustOpen(t, Options{})
	spec, err := loadSockets()
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := attachAll("/proc", spec, p.objects)
	var unsupported *UnsupportedError
	want := "cgroup/sock_release"
	if p.Fallback() == nil {
		want = "fentry/udp_lib_unhash" // the kernel attaches a program to one place
	}
	if !errors.As(err, &unsupported) || unsupported.Feature != want || hooks != nil {
		t.Errorf("got %v, %v, want an *UnsupportedError for %s", hooks, err, want)
	}
}

func TestWithoutRights(t *testing.T) {
	command := kernel.Unprivileged(t)
	command.Env = []string{helperVariable + "=unsupported"}
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if got := string(output); !strings.HasPrefix(got, "*probe.UnsupportedError") || !strings.Contains(got, remedyRights) {
		t.Errorf("without rights Open returned %q, want an *UnsupportedError with %q", got, remedyRights)
	}
}

func TestRingBytes(t *testing.T) {
	page := uint32(os.Getpagesize())
	for wanted, want := range map[int]uint32{
		0: defaultRingBytes, 1: page, int(page): page, int(page) + 1: 2 * page,
		3 << 20: 4 << 20, 1 << 30: 1 << 30, 1<<30 + 1: 1 << 30,
	} {
		if got := ringBytes(wanted); got != want {
			t.Errorf("ringBytes(%d) = %d, want %d", wanted, got, want)
		}
	}
}

func TestNetnsCookie(t *testing.T) {
	one, two := newSpace(t), newSpace(t)
	if one.cookie == 0 || one.cookie == two.cookie {
		t.Errorf("cookies %d and %d of two namespaces", one.cookie, two.cookie)
	}
	one.do(func() {
		fd := one.socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
		cookie, err := NetnsCookie(fd)
		if err != nil || cookie != one.cookie {
			t.Errorf("a netlink socket gives %d, %v, want %d", cookie, err, one.cookie)
		}
		one.close(fd)
	})
	if _, err := NetnsCookie(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}
