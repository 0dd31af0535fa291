package controller

import (
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/process"
)

// BenchmarkFact takes an opening and its close from an eBPF event to the sink.
func BenchmarkFact(b *testing.B) {
	finder := process.NewFinder("/proc")
	logger := logrus.New()
	logger.SetLevel(logrus.ErrorLevel)
	c := New(Options{
		Logger: logger, Sink: func(*port.Event) bool { return true }, ProcRoot: "/proc", HostName: "node1",
		Tuning: Tuning{Monitored: func(*port.Container) bool { return true }}, Finder: finder, Attributor: process.NewAttributor(finder, nil),
	})
	web := container([]string{"172.17.0.2"}, "0.0.0.0:8080")
	g := newGroup(port.Namespace{Inode: 1})
	m := &member{Container: web, group: g, monitored: true}
	c.containers[web.ID], g.members[web.ID], c.groups[g.id] = m, m, g
	g.watcher = c.newWatcher(g)
	c.byCookie[7] = g.watcher
	r := newFactReader(c, nil)
	opened := probe.Event{Kind: probe.Opened, Time: time.Now(), NetnsCookie: 7, PID: 1, Name: "x"}
	opened.Socket = port.Socket{Cookie: 1, Protocol: port.TCP, Address: web.Addresses[0], Port: 80}
	closed := opened
	closed.Kind = probe.Closed
	b.ReportAllocs()
	for b.Loop() {
		opened.Socket.Cookie++
		closed.Socket.Cookie++
		for _, e := range []*probe.Event{&opened, &closed} {
			f := r.fact(e)
			c.takeFact(&f)
		}
	}
}
