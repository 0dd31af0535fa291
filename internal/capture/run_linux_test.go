package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

const opened80 = "opened web 80/tcp loopback sock_diag"

// observer is called for each scan.
type observer func(model.Source)

func (o observer) ObserveScan(s model.Source, _ time.Duration) { o(s) }

func TestRun(t *testing.T) {
	l, b := start(t, nil), kernel.NewBox(t)
	b.Listen(80)
	web := boxed(b, "web")
	l.report(engine.Started, web)
	l.await(opened80)
	closeSecond := b.Listen(81)
	l.await(opened80, "opened web 81/tcp loopback sock_diag")
	closeSecond()
	want := []string{opened80, "opened web 81/tcp loopback sock_diag", "closed web 81/tcp loopback sock_diag"}
	l.await(want...)
	l.report(engine.Stopped, web)
	l.await(append(want, "closed web 80/tcp loopback engine")...)
	kernel.Eventually(t, "the host's name is known", func() bool { return l.Status().Host == "node1" })
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	if p := l.out.events()[0].Processes; len(p) != 1 || p[0].PID != os.Getpid() {
		t.Errorf("processes %+v, want this one", p)
	}
}

// An engine that does not answer with its host's name holds up no container.
func TestEngineThatHangs(t *testing.T) {
	l := prepare(t, nil)
	l.engine.hangs = true
	l.start()
	b := kernel.NewBox(t)
	b.Listen(80)
	began := time.Now()
	l.report(engine.Started, boxed(b, "web"))
	l.await(opened80)
	if took := time.Since(began); took > 8*time.Second { // of the 10 s that such a request may take
		t.Errorf("the first container was watched after %s", took)
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}
}

// A panic in a scan ends in a restart of the watcher, and affects no other.
func TestScanThatPanics(t *testing.T) {
	var once sync.Once
	l, b := start(t, func(o *Options) {
		o.Mode = source.Netlink
		o.Observer = observer(func(model.Source) { once.Do(func() { panic("in the middle of a scan") }) })
	}), kernel.NewBox(t)
	b.Listen(80)
	l.report(engine.Started, boxed(b, "web"))
	l.report(engine.Synced, nil)
	l.await(opened80)
	kernel.Eventually(t, "ready", func() bool { return l.Ready() == nil })
	if n := l.logged("Ports cannot be read"); n != 1 {
		t.Errorf("the panic was logged %d times, want once", n)
	}
	for _, entry := range l.logs.AllEntries() {
		if err, _ := entry.Data[logrusError].(error); strings.Contains(entry.Message, "Ports cannot be read") && !strings.Contains(err.Error(), "in the middle of a scan") {
			t.Errorf("logged with %v", err)
		}
	}
	if l.Status().Watchers[0].Stale {
		t.Error("what is known is stale after the restart")
	}
}

const logrusError = "error"

func TestProcAlone(t *testing.T) {
	l, b := start(t, func(o *Options) { o.Mode = source.Proc }), kernel.NewBox(t)
	b.Listen(80)
	l.report(engine.Started, boxed(b, "web"))
	l.await("opened web 80/tcp loopback proc")
	closeIt := b.Listen(82)
	l.await("opened web 80/tcp loopback proc", "opened web 82/tcp loopback proc")
	closeIt()
	l.await("opened web 80/tcp loopback proc", "opened web 82/tcp loopback proc", "closed web 82/tcp loopback proc")
}

// An IPv6 wildcard reports whether it takes IPv4 too; every other address reports nothing,
// although the kernel marks a specific IPv6 address as well.
func TestIPv6Only(t *testing.T) {
	l, b := start(t, nil), kernel.NewBox(t)
	b.Do(kernel.LoopbackUp)
	listen := func(address netip.Addr, number, v6only int) {
		b.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only),
				unix.Bind(fd, &unix.SockaddrInet6{Port: number, Addr: address.As16()}), unix.Listen(fd, 1))
		})
	}
	listen(netip.IPv6Unspecified(), 80, 0)
	listen(netip.IPv6Unspecified(), 81, 1)
	listen(netip.IPv6Loopback(), 82, 0)
	b.Listen(83)
	l.report(engine.Started, boxed(b, "web"))
	l.await(opened80, "opened web 81/tcp loopback sock_diag", "opened web 82/tcp loopback sock_diag", "opened web 83/tcp loopback sock_diag")
	for _, e := range l.out.events() {
		if e.IPv6Only != (e.Port == 81) {
			t.Errorf("port %d: IPv6 only is %v", e.Port, e.IPv6Only)
		}
	}
	for _, o := range l.Open() {
		if o.IPv6Only != (o.Port == 81) {
			t.Errorf("port %d is listed with IPv6 only %v", o.Port, o.IPv6Only)
		}
	}
}

// A container that is selected again beside one that is watched is scanned now, not
// when the next scan is due.
func TestSelectedAgainBesideAnother(t *testing.T) {
	l, b := start(t, func(o *Options) {
		o.Tuning.ScanInterval = time.Hour
		o.Tuning.Enabled = func(c *model.Container) bool { return c.Name != "hidden" }
	}), kernel.NewBox(t)
	web, mate := boxed(b, "web"), boxed(b, "mate")
	mate.ID = strings.Repeat("1", 64)
	l.report(engine.Started, web)
	l.report(engine.Started, mate)
	l.report(engine.Updated, boxed(b, "hidden"))
	kernel.Eventually(t, "one is watched", func() bool {
		c := l.Containers()
		return len(c) == 2 && !c[0].Monitored && c[0].Name == "hidden"
	})
	l.watched(model.SourceSockDiag)
	before := l.Status().Watchers[0].LastScan
	l.report(engine.Updated, web)
	kernel.Eventually(t, "the namespace is scanned again", func() bool { return l.Status().Watchers[0].LastScan.After(before) })
}

func TestCloseGraceEnds(t *testing.T) {
	l, b := start(t, func(o *Options) { o.Tuning.CloseGrace = 300 * time.Millisecond }), kernel.NewBox(t)
	l.report(engine.Synced, nil)
	closeIt := b.Listen(80)
	l.report(engine.Started, boxed(b, "web"))
	l.await(opened80)
	closeIt()
	l.await(opened80, "closed web 80/tcp loopback sock_diag")
	if got := l.out.events()[1]; *got.OpenSeconds < 0 || got.Time.Before(got.OpenedAt) {
		t.Errorf("closed at %v, opened at %v", got.Time, got.OpenedAt)
	}
}

// A burst is reported by its timer, although nothing else happens.
func TestBurstIsReported(t *testing.T) {
	l, b := start(t, func(o *Options) { o.Tuning.BurstLimit = 2 }), kernel.NewBox(t)
	for number := range 5 {
		b.Listen(8000 + number)
	}
	l.report(engine.Started, boxed(b, "web"))
	kernel.Eventually(t, "all are reported", func() bool { return l.out.sumsOf(boxed(b, "web").ID).opened == 5 })
}

// 200 containers come and go: no namespace, descriptor or goroutine is left.
func TestNothingIsLeft(t *testing.T) {
	descriptors, goroutines := kernel.Descriptors(t), runtime.NumGoroutine()
	l := start(t, nil)
	l.report(engine.Synced, nil)
	for batch := range 4 {
		var boxes []*kernel.Box
		for range 50 {
			b := kernel.NewBox(t)
			boxes = append(boxes, b)
			l.report(engine.Started, boxed(b, "box"))
		}
		kernel.Await(t, "all are scanned", func() string {
			watchers := l.Status().Watchers
			for _, w := range watchers {
				if w.LastScan.IsZero() {
					return fmt.Sprintf("%+v is not", w)
				}
			}
			if len(watchers) != 50 {
				return fmt.Sprint(len(watchers), " watchers in batch ", batch)
			}
			return ""
		})
		for i, b := range boxes {
			if (batch+i)%2 == 0 {
				b.End()
			}
			l.report(engine.Stopped, boxed(b, "box"))
			b.End()
		}
	}
	kernel.Eventually(t, "none is known", func() bool { return len(l.Containers())+len(l.Status().Watchers) == 0 })
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(l.namespaces) + len(l.containers) + len(l.reaches) + len(l.byCookie) + len(l.running); n > 0 {
		t.Errorf("%d namespaces, %d containers, %d reaches, %d cookies, %d watchers are left",
			len(l.namespaces), len(l.containers), len(l.reaches), len(l.byCookie), len(l.running))
	}
	kernel.Eventually(t, "descriptors and goroutines are as before", func() bool {
		return kernel.Descriptors(t) <= descriptors && runtime.NumGoroutine() <= goroutines
	})
}
