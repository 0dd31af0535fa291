package expect

import (
	"fmt"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// requiredKey is a port that a target has to have open.
type requiredKey struct {
	target string
	portOf
}

// target is where a required port is expected: a target that runs, or ran, or the text of the
// entry.
type target struct {
	name string
	ref  *model.ContainerRef
}

// requirement is a required port of a target. While it is not open, it is missing from due on.
type requirement struct {
	entry *Entry
	ref   *model.ContainerRef
	due   clock.Instant
	// extended means that a container of the target has started since the port was last open:
	// a container that starts again and again does not put off the drift for ever.
	extended bool
	missing  bool
}

// require computes which ports are required of which targets: of each that runs and matches an
// entry; where none runs, of those that ran last; where none ran, of the entry's text. reason
// is that of the drifts that end because nothing is required any more.
func (j *Judge) require(now clock.Instant, wall time.Time, reason string) {
	if !j.started {
		return // Start does it, when all containers are known
	}
	found := map[requiredKey]bool{}
	if j.file != nil {
		for _, e := range j.file.Entries {
			if !e.Required || !e.Valid(wall) {
				continue
			}
			for _, t := range j.targetsOf(e) {
				e.Ports.Each(func(first, _ uint16, protocol model.Protocol) {
					key := requiredKey{t.name, portOf{protocol, first}}
					found[key] = true
					j.requireOf(key, e, t.ref, now)
				})
			}
		}
	}
	for key, r := range j.required {
		if !found[key] {
			j.found(key, r, wall, reason)
			delete(j.required, key)
		}
	}
	for key, p := range j.periods { // of an earlier run
		required := requiredKey{key.Target, portOf{key.Protocol, key.Port}}
		if key.Drift == model.DriftMissing && !found[required] {
			j.emit(key.Drift, true, p.open[model.Endpoint{}], p.expected, reason, wall)
			j.finish(key, p, wall)
		}
	}
}

func (j *Judge) requireOf(key requiredKey, e *Entry, ref *model.ContainerRef, now clock.Instant) {
	r := j.required[key]
	if r == nil {
		r = &requirement{due: now.Add(e.For)}
		missing := j.periods[missingKey(key)]
		r.missing = missing != nil && len(missing.open) > 0 // of an earlier run
		j.required[key] = r
		j.next.earlier(r.due)
	}
	r.entry, r.ref = e, ref
}

// targetsOf returns where the ports of an entry are required.
func (j *Judge) targetsOf(e *Entry) []target {
	var running []target
	names := map[string]bool{}
	for _, w := range j.containers {
		if name := w.ref.Target(); e.Target.Matches(w.ref, j.named) && !names[name] {
			names[name] = true
			running = append(running, target{name, w.ref})
		}
	}
	text := e.Target.String()
	if len(running) > 0 {
		j.lastOf[text] = running
		return running
	}
	if last := j.lastOf[text]; len(last) > 0 {
		return last
	}
	return []target{{text, refOf(text)}}
}

// refOf returns a reference to a target that was not seen running.
func refOf(text string) *model.ContainerRef {
	ref := &model.ContainerRef{Name: text}
	if parts := splitService(text); len(parts) == 2 {
		ref.Project, ref.Service = parts[0], parts[1]
	}
	return ref
}

func missingKey(key requiredKey) model.DriftKey {
	return model.DriftKey{Drift: model.DriftMissing, Target: key.target, Protocol: key.protocol, Port: key.port}
}

// gain applies that a required port is open.
func (j *Judge) gain(key requiredKey, l *model.Listener, at time.Time) {
	if key == (requiredKey{}) {
		return
	}
	j.opens[key]++
	if r := j.required[key]; r != nil {
		r.ref = l.Container
		j.found(key, r, at, "it is open")
	}
}

// lose applies that an endpoint of a required port is not open any more.
func (j *Judge) lose(key requiredKey, now clock.Instant) {
	if key == (requiredKey{}) {
		return
	}
	if j.opens[key]--; j.opens[key] > 0 {
		return
	}
	delete(j.opens, key)
	if r := j.required[key]; r != nil {
		r.due, r.extended = now.Add(r.entry.For), false
		j.next.earlier(r.due)
	}
}

// begun applies that a container has started: its required ports have their time from now.
func (j *Judge) begun(w *watched, now clock.Instant) {
	name := w.ref.Target()
	for key, r := range j.required {
		if key.target == name && j.opens[key] == 0 && !r.missing && !r.extended {
			r.due, r.extended = now.Add(r.entry.For), true
		}
	}
}

// found ends the drift of a required port, if it was missing.
func (j *Judge) found(key requiredKey, r *requirement, at time.Time, reason string) {
	if !r.missing {
		return
	}
	r.missing = false
	if p := j.periods[missingKey(key)]; p != nil {
		l := &model.Listener{Container: r.ref, Protocol: key.protocol, Port: key.port}
		j.emit(model.DriftMissing, true, l, p.expected, reason, at)
		j.finish(missingKey(key), p, at)
	}
}

// Expire begins the drifts of required ports whose time has passed, and forgets what has ended
// for good. reported reports whether the capture reports a port of a container.
func (j *Judge) Expire(now clock.Instant, wall time.Time, reported func(id string, protocol model.Protocol, port uint16) bool) {
	if !j.started {
		return
	}
	j.expirePeriods(now, wall)
	defer func() { j.next = j.findNext() }()
	for key, r := range j.required {
		if r.missing || j.opens[key] > 0 || now.Before(r.due) {
			continue
		}
		switch j.observed(key, reported) {
		case notYet:
			r.due = now.Add(time.Second)
		case never:
			r.due = now.Add(r.entry.For + time.Minute)
		default:
			j.miss(key, r, wall)
		}
	}
}

func (j *Judge) miss(key requiredKey, r *requirement, wall time.Time) {
	r.missing = true
	l := &model.Listener{Container: r.ref, Protocol: key.protocol, Port: key.port}
	reason := fmt.Sprintf("not open for %s", r.entry.For)
	if !j.runs(key.target) {
		reason += "; no container of it runs"
	}
	if j.begin(missingKey(key), model.Endpoint{}, l, "open", wall) {
		j.emit(model.DriftMissing, false, l, "open", reason, wall)
	}
}

func (j *Judge) runs(target string) bool {
	for _, w := range j.containers {
		if w.ref.Target() == target {
			return true
		}
	}
	return false
}

type observed int

const (
	known  observed = iota // whether the port is open is known
	notYet                 // a container of the target was not scanned yet
	never                  // no container of the target is monitored, or its port is not reported
)

// observed reports whether it is known that a required port is not open.
func (j *Judge) observed(key requiredKey, reported func(string, model.Protocol, uint16) bool) observed {
	result := known
	for id, w := range j.containers {
		switch {
		case w.ref.Target() != key.target:
		case !w.monitored || !reported(id, key.protocol, key.port):
			result = never
		case !w.scanned:
			return notYet
		}
	}
	return result
}

// NextExpiry returns when [Judge.Expire] may have something to do next; false where nothing
// waits. It is cheap.
func (j *Judge) NextExpiry() (next clock.Instant, waits bool) {
	return j.next.at, j.next.waits && j.started
}

// nextExpiry is when something may be due; it may be too early.
type nextExpiry struct {
	waits bool
	at    clock.Instant
}

func (n *nextExpiry) earlier(at clock.Instant) {
	if !n.waits || at.Before(n.at) {
		n.at, n.waits = at, true
	}
}

func (j *Judge) findNext() (next nextExpiry) {
	for _, p := range j.periods {
		if len(p.open) == 0 {
			next.earlier(p.linger)
		}
	}
	for key, r := range j.required {
		if !r.missing && j.opens[key] == 0 {
			next.earlier(r.due)
		}
	}
	return next
}
