package expect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// began is the time of second 0 of a rig.
var began = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// rig drives a judge as a capture does, and folds its events as consumers do.
type rig struct {
	*Judge
	t       *testing.T
	second  int
	open    map[model.Endpoint]model.Open
	refs    map[string]*model.ContainerRef
	set     model.OpenSet
	lines   []string // drift events
	periods map[string]model.DriftPeriod
}

func newRig(t *testing.T, file string, periods ...model.DriftPeriod) *rig {
	r := &rig{Judge: NewJudge(periods), t: t, open: map[model.Endpoint]model.Open{}, refs: map[string]*model.ContainerRef{}, periods: map[string]model.DriftPeriod{}}
	if file != "" {
		r.SetFile(parsed(t, file), r.wall())
	}
	return r
}

func parsed(t testing.TB, content string) *File {
	t.Helper()
	f, err := Parse("expected.yaml", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (r *rig) now() clock.Instant {
	return clock.Instant(time.Hour) + clock.Instant(r.second)*clock.Instant(time.Second)
}
func (r *rig) wall() time.Time { return began.Add(time.Duration(r.second) * time.Second) }

// take collects what the judge has found.
func (r *rig) take() {
	for _, e := range r.Events() {
		r.set.Apply(e)
		place := e.Container.Target()
		if e.Port != 0 {
			place += fmt.Sprintf(" %d/%s", e.Port, e.Protocol)
		}
		verb := "began"
		if e.Ended {
			verb = "ended"
		}
		r.lines = append(r.lines, fmt.Sprintf("%d: %s %s %s", r.second, e.Drift, verb, place))
	}
	for _, p := range r.Periods() {
		r.periods[fmt.Sprint(p.Key(), p.Since)] = p
	}
}

// start has a container start; a name of the form project/service/number is a Compose container.
func (r *rig) start(name string, labels ...string) *model.ContainerRef {
	c := &model.Container{ID: fmt.Sprintf("%s-%d", name, r.second), Name: name, Labels: map[string]string{}}
	if parts := strings.Split(name, "/"); len(parts) == 3 {
		c.Name = strings.Join(parts, "-")
		c.Labels[model.LabelProject], c.Labels[model.LabelService] = parts[0], parts[1]
	}
	if len(labels) > 0 {
		c.Labels[Label] = labels[0]
	}
	ref := c.Ref()
	r.refs[ref.ID] = ref
	again := r.Running(ref, true, r.now(), r.wall())
	r.Scanned(ref.ID)
	r.settleAgain(again)
	r.take()
	return ref
}

func (r *rig) settleAgain(needed bool) {
	if needed {
		r.reconcile("")
	}
}

func (r *rig) reconcile(reason string) {
	var open []model.Open
	for _, o := range r.open {
		open = append(open, o)
	}
	r.Reconcile(open, reason, r.now(), r.wall())
	r.take()
}

func (r *rig) stop(ref *model.ContainerRef) {
	for endpoint, o := range r.open {
		if endpoint.Container == ref.ID {
			r.close(ref, o.Port)
		}
	}
	delete(r.refs, ref.ID)
	r.settleAgain(r.Ended(ref.ID, r.now(), r.wall()))
	r.take()
}

func listener(ref *model.ContainerRef, port uint16, exposure model.Exposure, process string) model.Listener {
	l := model.Listener{Container: ref, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: port}
	l.SetReach(exposure, nil)
	if process != "" {
		l.Processes = []model.Process{{PID: 1, Name: process}}
	}
	return l
}

// event applies an event, and returns its drift.
func (r *rig) event(kind model.Type, l model.Listener) model.Drift {
	e := &model.Event{Type: kind, Time: r.wall(), Listener: l}
	r.Apply(e, r.now())
	r.set.Apply(e)
	endpoint := e.Endpoint()
	if kind == model.Closed {
		delete(r.open, endpoint)
	} else {
		o := r.open[endpoint]
		if kind == model.Opened {
			o.OpenedAt = e.Time
		}
		o.Listener = l
		r.open[endpoint] = o
	}
	r.take()
	return e.Drift
}

func (r *rig) opens(ref *model.ContainerRef, port uint16, exposure model.Exposure) model.Drift {
	return r.event(model.Opened, listener(ref, port, exposure, ""))
}

func (r *rig) close(ref *model.ContainerRef, port uint16) model.Drift {
	for endpoint, o := range r.open {
		if endpoint.Container == ref.ID && endpoint.Port == port {
			return r.event(model.Closed, o.Listener)
		}
	}
	r.t.Fatalf("%s has no open port %d", ref.Name, port)
	return ""
}

// pass lets seconds pass, and has the judge do what is due.
func (r *rig) pass(seconds int) {
	for range seconds {
		r.second++
		if r.Judge.Expired(r.wall()) {
			r.reconcile("an expectation has expired")
		}
		if next, waits := r.NextExpiry(); waits && !next.After(r.now()) {
			r.Expire(r.now(), r.wall(), func(string, model.Protocol, uint16) bool { return true })
		}
		r.take()
	}
}

// drifts lists what lasts.
func (r *rig) drifts() []string {
	var all []string
	for _, d := range r.Open() {
		all = append(all, describedDrift(&d))
	}
	return all
}

func describedDrift(d *model.OpenDrift) string {
	text := string(d.Drift) + " " + d.Target
	if d.Port != 0 {
		text += fmt.Sprintf(" %d/%s", d.Port, d.Protocol)
	}
	return strings.TrimSpace(text + " " + string(d.Exposure))
}

func (r *rig) wantLines(want ...string) {
	r.t.Helper()
	if !slices.Equal(r.lines, want) {
		r.t.Fatalf("drift events\n  got  %s\n  want %s", strings.Join(r.lines, "\n       "), strings.Join(want, "\n       "))
	}
}

func (r *rig) wantDrifts(want ...string) {
	r.t.Helper()
	if got := r.drifts(); !slices.Equal(got, want) {
		r.t.Fatalf("drifts\n  got  %q\n  want %q", got, want)
	}
}
