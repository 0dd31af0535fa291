package journal

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/port"
)

// quiet is a logger that nobody reads.
func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// traffic makes events as a host of some containers gives them: each endpoint
// opens and closes.
type traffic struct {
	random     *rand.Rand
	containers []*port.ContainerRef
	id         uint64
	now        time.Time
	step       time.Duration // between events
	open       []*port.Event
}

func newTraffic(containers int, first uint64, start time.Time, step time.Duration) *traffic {
	t := &traffic{random: rand.New(rand.NewPCG(1, 2)), id: first, now: start.UTC(), step: step}
	for i := range containers {
		t.containers = append(t.containers, &port.ContainerRef{
			ID: fmt.Sprintf("%064x", i+1<<40), Name: fmt.Sprintf("shop_web_%d", i), Image: "nginx:1.27", Project: "shop", Service: "web",
		})
	}
	return t
}

func (t *traffic) next() *port.Event {
	t.now = t.now.Add(t.step)
	e := &port.Event{ID: t.id, Time: t.now}
	t.id++
	if len(t.open) > 200 || len(t.open) > 0 && t.random.IntN(2) == 0 {
		at := t.random.IntN(len(t.open))
		opened := t.open[at]
		t.open[at] = t.open[len(t.open)-1]
		t.open = t.open[:len(t.open)-1]
		seconds := t.now.Sub(opened.Time).Seconds()
		e.Type, e.Listener, e.OpenedAt, e.OpenSeconds = port.Closed, opened.Listener, opened.Time, &seconds
		return e
	}
	uid := uint32(t.random.IntN(1000))
	e.Type = port.Opened
	e.Listener = port.Listener{
		Host: "node1", Container: t.containers[t.random.IntN(len(t.containers))],
		Protocol: port.TCP, Address: netip.IPv4Unspecified(), Port: uint16(1 + t.random.IntN(65535)),
		Processes: []port.Process{{PID: 100_000 + t.random.IntN(1<<20), ContainerPID: 1 + t.random.IntN(5000), Name: "nginx", Executable: "/usr/sbin/nginx", UID: &uid}},
		Exposure:  port.Network, Source: port.SourceEBPF,
	}
	t.open = append(t.open, e)
	return e
}
