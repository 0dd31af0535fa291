package capture

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"portwatcher/internal/model"
)

// consumer is a sink that keeps what it takes.
type consumer struct {
	name    string
	keeps   bool // what is open, as the journal does
	lossy   bool
	mutex   sync.Mutex
	records []Record
	full    bool // it takes nothing
	crowded bool // it has no room for more, and takes what is forced
}

func newConsumer(name string) *consumer { return &consumer{name: name} }

func (k *consumer) sink() Sink {
	return Sink{
		Name: k.name, State: k.keeps, Lossy: k.lossy, Slow: "missing from " + k.name + ", which is slow",
		Offer: func(_ string, r Record, force bool) bool {
			k.mutex.Lock()
			defer k.mutex.Unlock()
			if k.full || k.crowded && !force {
				return false
			}
			k.records = append(k.records, r)
			return true
		},
		Room: func(string) bool {
			k.mutex.Lock()
			defer k.mutex.Unlock()
			return !k.crowded
		},
		Status: func() (int, int) { return 3, 8 },
	}
}

func (k *consumer) set(full, crowded bool) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.full, k.crowded = full, crowded
}

func (k *consumer) all() []Record {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return slices.Clone(k.records)
}

// events returns the events that were taken.
func (k *consumer) events() (events []*model.Event) {
	for _, r := range k.all() {
		if r.Event != nil {
			events = append(events, r.Event)
		}
	}
	return events
}

// lines describes the events, without numbers and times.
func (k *consumer) lines() (lines []string) {
	for _, e := range k.events() {
		lines = append(lines, line(e))
	}
	return lines
}

func line(e *model.Event) string {
	switch e.Type {
	case model.Gap:
		return fmt.Sprintf("gap %d: %s", e.Lost, e.Reason)
	case model.Bursts:
		return fmt.Sprintf("burst %s +%d -%d", e.Container.Name, e.Opened, e.Closed)
	}
	if e.Change == model.ChangeExposure {
		return fmt.Sprintf("changed %s %d/%s %s to %s %s", e.Container.Name, e.Port, e.Protocol, reachText(e.PreviousExposure, e.PreviousPublished),
			reachText(e.Exposure, e.Published), e.Source)
	}
	text := fmt.Sprintf("%s %s %d/%s %s %s", e.Type, e.Container.Name, e.Port, e.Protocol, e.Exposure, e.Source)
	if e.Namespace != "" {
		text += " in " + e.Namespace
	}
	return text
}

// reachText names the published addresses only where they are not the usual one.
func reachText(e model.Exposure, published []string) string {
	if len(published) == 0 || published[0] == "0.0.0.0:8080" {
		return string(e)
	}
	return string(e) + " at " + strings.Join(published, " ")
}

// sums are the openings and closings that a consumer has received.
type sums struct{ opened, closed, lost uint64 }

// sumsOf returns what was reported of a container, "" for what is of none.
func (k *consumer) sumsOf(id string) (s sums) {
	for _, e := range k.events() {
		switch {
		case e.Container == nil && id != "" || e.Container != nil && e.Container.ID != id:
		case e.Type == model.Opened:
			s.opened++
		case e.Type == model.Closed:
			s.closed++
		case e.Burst != nil:
			s.opened += e.Opened
			s.closed += e.Closed
		case e.Type == model.Gap:
			s.lost += e.Lost
		}
	}
	return s
}
