package expect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

const (
	// transientTime is up to how long a port may be open each time to be marked as transient.
	transientTime = 10 * time.Second
	// rareOpenings and rareShare are up to how often a port may open, and for which part of the
	// time it may be open, to be marked as rare.
	rareOpenings = 3
	rareShare    = 0.01
	// maxMarked bounds the ports of one target that are marked and listed one by one.
	maxMarked = 32
)

// Learner makes a file of expectations of what a journal has: which ports were open. It does not
// decide what should be open.
type Learner struct {
	since time.Time
	set   model.OpenSet
	ports map[learnedKey]*learned
	// counted are the ports of bursts, by target.
	counted map[string]uint64
}

type learnedKey struct {
	target   string
	protocol model.Protocol
	port     uint16
}

// learned is what was seen of a port of a target.
type learned struct {
	draft
	openings int
	open     time.Duration // together
	longest  time.Duration
	last     time.Time // when it was last open
	lasts    bool      // it is open at the end
}

// NewLearner returns a learner of what happened since a time.
func NewLearner(since time.Time) *Learner {
	return &Learner{since: since, ports: map[learnedKey]*learned{}, counted: map[string]uint64{}}
}

// Begin applies what was open at the beginning.
func (l *Learner) Begin(open []model.Open) {
	for i := range open {
		o := &open[i]
		l.Apply(&model.Event{Type: model.Opened, Time: l.since, Listener: o.Listener})
	}
}

// Apply applies an event of the journal.
func (l *Learner) Apply(e *model.Event) {
	if e.Container == nil || e.Container.ID == "" {
		return
	}
	switch {
	case e.Type == model.Bursts && e.Burst != nil:
		l.counted[e.Container.Target()] += e.Opened
	case e.Transient && e.Type == model.Closed:
		l.closed(e, 0)
	case e.Type == model.Opened:
		l.portOf(e).openings++
	case e.Type == model.Changed:
		l.portOf(e)
	case e.Type == model.Closed:
		began := e.OpenedAt
		if o := l.set.Get(e.Endpoint()); o != nil {
			began = o.OpenedAt
		}
		if began.Before(l.since) {
			began = l.since
		}
		l.closed(e, e.Time.Sub(began))
	}
	l.set.Apply(e)
}

// portOf adds what an event shows of its port.
func (l *Learner) portOf(e *model.Event) *learned {
	key := learnedKey{e.Container.Target(), e.Protocol, e.Port}
	seen := entryOf(key.target, &e.Listener)
	p := l.ports[key]
	if p == nil {
		p = &learned{draft: *seen}
		l.ports[key] = p
	} else {
		merge([]*draft{&p.draft}, seen)
	}
	p.last = e.Time
	return p
}

func (l *Learner) closed(e *model.Event, open time.Duration) {
	p := l.portOf(e)
	p.open += max(open, 0)
	p.longest = max(p.longest, open)
}

// File returns the file, with comments, as of a time.
func (l *Learner) File(now time.Time) string {
	for _, o := range l.set.All() {
		if p := l.ports[learnedKey{o.Container.Target(), o.Protocol, o.Port}]; p != nil {
			open := now.Sub(o.OpenedAt)
			p.lasts, p.last = true, now
			p.open += open
			p.longest = max(p.longest, open)
		}
	}
	all := make([]*learned, 0, len(l.ports))
	for _, p := range l.ports {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *learned) int { return compareEntries(&a.draft, &b.draft) })
	var b strings.Builder
	fmt.Fprintf(&b, "# What was open from %s to %s, as portwatcher recorded it.\n", l.since.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	b.WriteString("# It is a draft: remove what should not be open, and give the rest a reason.\nversion: 1\n")
	if len(all) == 0 {
		b.WriteString("expect: []\n")
		return b.String()
	}
	b.WriteString("expect:\n")
	for _, one := range byTarget(all) {
		l.write(&b, one, now)
	}
	return b.String()
}

// byTarget divides ports, which are ordered, by their targets.
func byTarget(all []*learned) (targets [][]*learned) {
	for i, p := range all {
		if i == 0 || p.target != all[i-1].target {
			targets = append(targets, nil)
		}
		last := len(targets) - 1
		targets[last] = append(targets[last], p)
	}
	return targets
}

// write writes the ports of one target.
func (l *Learner) write(b *strings.Builder, ports []*learned, now time.Time) {
	marked, skipped := 0, []uint16(nil)
	for _, p := range ports {
		if mark := p.mark(now.Sub(l.since)); mark != "" {
			if marked++; marked > maxMarked {
				skipped = append(skipped, p.port)
				continue
			}
			p.comments = append(p.comments, mark)
		}
		b.WriteString(lines(&p.draft))
	}
	target := ports[0].target
	if len(skipped) > 0 {
		fmt.Fprintf(b, "  # %s: %d more transient or rare ports, %d to %d, are not listed; a range may fit them.\n", visible(target), len(skipped), skipped[0], skipped[len(skipped)-1])
	}
	if counted := l.counted[target]; counted > 0 {
		fmt.Fprintf(b, "  # %s: %d more openings were counted in bursts.\n", visible(target), counted)
	}
}

// visible returns a name for a comment, in which each character shows and stays in the line.
func visible(name string) string { return strings.Trim(fmt.Sprintf("%q", name), `"`) }

// mark returns the comment of a port that was not open as a server's is; empty for the others.
func (p *learned) mark(period time.Duration) string {
	seen := fmt.Sprintf("opened %s, last %s", times(p.openings), p.last.UTC().Format(time.RFC3339))
	switch {
	case p.longest <= transientTime && !p.lasts:
		return fmt.Sprintf("transient: %s, never open for longer than %s", seen, p.longest.Round(time.Millisecond))
	case !p.lasts && p.openings <= rareOpenings || p.open.Seconds() < rareShare*period.Seconds():
		return fmt.Sprintf("rare: %s, open for %s together", seen, p.open.Round(time.Second))
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
