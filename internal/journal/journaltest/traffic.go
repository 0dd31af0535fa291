// Package journaltest makes events for tests and benchmarks of the journal.
package journaltest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"portwatcher/internal/model"
)

// Traffic makes events as a host with some containers gives them: endpoints
// open, and close again. Equal arguments make equal events.
type Traffic struct {
	// ID and Now are those of the last event; the next one has ID+1, and Step
	// later.
	ID         uint64
	Now        time.Time
	Step       time.Duration
	Containers []*model.ContainerRef
	// Open are the opened events whose endpoints have not closed.
	Open []*model.Event

	random *rand.Rand
}

// maxOpen is how many endpoints are open at most.
const maxOpen = 200

// New returns the traffic of some containers from start on.
func New(containers int, firstID uint64, start time.Time, step time.Duration) *Traffic {
	t := &Traffic{ID: firstID - 1, Now: start.UTC(), Step: step, random: rand.New(rand.NewPCG(1, 2))}
	for i := range containers {
		t.Containers = append(t.Containers, &model.ContainerRef{
			ID: fmt.Sprintf("%064x", i+1<<40), Name: fmt.Sprintf("shop_web_%d", i), Image: "nginx:1.27", Project: "shop", Service: "web",
		})
	}
	return t
}

// Next returns the next event.
func (t *Traffic) Next() *model.Event {
	t.ID++
	t.Now = t.Now.Add(t.Step)
	e := &model.Event{ID: t.ID, Time: t.Now}
	if len(t.Open) > maxOpen || len(t.Open) > 0 && t.random.IntN(2) == 0 {
		t.close(e)
	} else {
		t.open(e)
	}
	return e
}

func (t *Traffic) close(e *model.Event) {
	last := len(t.Open) - 1
	at := t.random.IntN(last + 1)
	opened := t.Open[at]
	t.Open[at] = t.Open[last]
	t.Open = t.Open[:last]
	seconds := e.Time.Sub(opened.Time).Seconds()
	e.Type, e.Listener, e.OpenedAt, e.OpenSeconds = model.Closed, opened.Listener, opened.Time, &seconds
}

func (t *Traffic) open(e *model.Event) {
	uid := uint32(t.random.IntN(1000))
	e.Type = model.Opened
	e.Listener = model.Listener{
		Host: "node1", Container: t.Containers[t.random.IntN(len(t.Containers))],
		Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(1024 + t.ID%60_000),
		Processes: []model.Process{{
			PID: 100_000 + t.random.IntN(1<<20), ContainerPID: 1 + t.random.IntN(5000),
			Name: "nginx", Executable: "/usr/sbin/nginx", UID: &uid,
		}},
		Source: model.SourceEBPF,
	}
	e.SetReach(model.Network, nil)
	t.Open = append(t.Open, e)
}
