package controller

import (
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
)

func TestFacts(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	p.events <- tell(b, cookie, probe.Opened, 1000001, 80)
	p.events <- tell(b, cookie, probe.Closed, 1000001, 80)
	p.events <- tell(b, cookie, probe.Opened, 1000002, 0) // listens without bind
	p.events <- tell(b, cookie, probe.Closed, 1000002, 4711)
	udp := tell(b, cookie, probe.Opened, 1000003, 5000)
	udp.Socket.Protocol, udp.Socket.AutoBound = port.UDP, true
	p.events <- udp // a client
	resolver := tell(b, cookie, probe.Opened, 1000004, 41000)
	resolver.Socket.Address = process.EngineResolver
	p.events <- resolver
	r.wait("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback ebpf",
		"opened web 4711/tcp loopback ebpf", "closed web 4711/tcp loopback ebpf")
	got := r.all()[0].Processes
	if len(got) != 1 || got[0].PID != b.Process.Pid || got[0].Name != "sleep" || got[0].Executable == "" {
		t.Errorf("processes %+v, want the box's with its executable", got)
	}
}

// A port that a dump tells, and one that stays open over a scan.
func TestFactsAndScans(t *testing.T) {
	r, p := startProbed(t, nil)
	b := newBox(t)
	cookie := b.netnsCookie()
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")
	r.registered(cookie)
	socket := r.dumped()
	p.events <- tell(b, cookie, probe.Opened, socket.Cookie, 80) // late news
	p.events <- tell(b, cookie, probe.Closed, socket.Cookie, 80)
	r.wait("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback ebpf")
}

// A scan that sees a socket before eBPF's event of it has been read waits for
// that.
func TestFactsBeforeTheScan(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	r.watched()
	b.listen(80)
	p.held <- tell(b, cookie, probe.Opened, r.dumped().Cookie, 80)
	r.scanAll()
	r.wait("opened web 80/tcp loopback ebpf")
}

// In a storm, where eBPF's events wait long, a scan is put off.
func TestScanIsPutOff(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	r.watched()
	var facts *factReader
	r.locked(func() { facts = r.facts })
	p.behind.Store(true)
	b.listen(80)
	p.held <- tell(b, cookie, probe.Opened, r.dumped().Cookie, 80)
	r.scanAll()
	kerneltest.Eventually(t, "the namespace is scanned again", func() bool {
		facts.mutex.Lock()
		defer facts.mutex.Unlock()
		return len(facts.flushes.next) > 0
	})
	r.wait() // nothing so far
	p.behind.Store(false)
	signal(p.flush)
	r.wait("opened web 80/tcp loopback ebpf")
}

func TestLossIsAGap(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	p.lost.Store(7) // set before the reader looks, which it does after each event
	client := tell(b, cookie, probe.Closed, 1, 1)
	client.Socket.Protocol, client.Socket.AutoBound = port.UDP, true
	p.events <- client
	b.listen(80)
	r.wait("gap: 7 socket events were lost: they came faster than they could be read; scanned again",
		"opened web 80/tcp loopback sock_diag")
}
