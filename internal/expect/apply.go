package expect

import (
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Apply sets Drift and Expected of an event that is not shared yet. now is the present
// moment.
func (j *Judge) Apply(e *model.Event, now clock.Instant) {
	if e.Container == nil || e.Container.ID == "" || e.Type == model.Gap || e.Type == model.Drifted {
		return
	}
	if e.Type == model.Closed && !e.Transient {
		j.close(e, now)
		return
	}
	cover := j.coverOf(e.Container)
	if e.Type == model.Bursts { // it changes nothing of what is open
		j.applyBurst(e, cover, now)
		return
	}
	v := cover.verdict(&e.Listener, e.Time)
	if v.Drift == model.DriftUncovered {
		j.uncover(e.Container, e.Time)
		v = Verdict{}
	}
	j.settle(e, v, now)
}

// settle applies the verdict on an endpoint to an event.
func (j *Judge) settle(e *model.Event, v Verdict, now clock.Instant) {
	e.Drift, e.Expected = v.Drift, v.Expected
	endpoint := e.Endpoint()
	key := keyOf(v.Drift, &e.Listener)
	if e.Transient {
		switch {
		case v.Drift == "":
		case e.Type == model.Opened:
			j.begin(key, endpoint, &e.Listener, v.Expected, e.Time)
		case j.endpoints[endpoint] == nil:
			j.end(key, endpoint, now, e.Time)
		}
		return
	}
	j.set(endpoint, &e.Listener, v, now, e.Time)
}

// set makes a verdict the state of an open endpoint, and reports whether the drift is new.
func (j *Judge) set(endpoint model.Endpoint, l *model.Listener, v Verdict, now clock.Instant, at time.Time) (fresh bool) {
	key := keyOf(v.Drift, l)
	before := j.endpoints[endpoint]
	if before != nil && before.drift != "" && (v.Drift == "" || before.key != key) {
		j.end(before.key, endpoint, now, at)
	}
	next := judged{drift: v.Drift}
	if v.Drift != "" {
		next.key = key
		fresh = j.begin(key, endpoint, l, v.Expected, at)
	}
	if j.file != nil && j.file.required[portOf{l.Protocol, l.Port}] {
		next.required = requiredKey{l.Container.Target(), portOf{l.Protocol, l.Port}}
	}
	if before == nil || before.required != next.required {
		if before != nil {
			j.lose(before.required, now)
		}
		j.gain(next.required, l, at)
	}
	if next == (judged{}) {
		delete(j.endpoints, endpoint)
	} else {
		j.endpoints[endpoint] = &next
	}
	return fresh
}

// close applies that an endpoint has closed.
func (j *Judge) close(e *model.Event, now clock.Instant) {
	endpoint := e.Endpoint()
	before := j.endpoints[endpoint]
	if before == nil { // it may have drifted in an earlier run
		v := j.coverOf(e.Container).verdict(&e.Listener, e.Time)
		if p := j.periods[keyOf(v.Drift, &e.Listener)]; v.Drift != "" && v.Drift != model.DriftUncovered && p != nil && p.restored {
			e.Drift, e.Expected = v.Drift, v.Expected
		}
		return
	}
	e.Drift = before.drift
	if before.drift != "" {
		if p := j.periods[before.key]; p != nil {
			e.Expected = p.expected
		}
		j.end(before.key, endpoint, now, e.Time)
	}
	j.lose(before.required, now)
	delete(j.endpoints, endpoint)
}

// applyBurst judges the ports that a burst names: whether each is expected. Who could reach
// them and which processes held them is not known for each, and is not judged. The drift of a
// burst begins and ends with it.
func (j *Judge) applyBurst(e *model.Event, cover *cover, now clock.Instant) {
	if cover.uncovered(e.Time) {
		j.uncover(e.Container, e.Time)
		return
	}
	if e.Burst == nil || !cover.judged() {
		return
	}
	ports := e.Ports
	if e.Port != 0 {
		ports = []uint16{e.Port}
	}
	protocols := []model.Protocol{e.Protocol}
	if e.Protocol == 0 {
		protocols = []model.Protocol{model.TCP, model.UDP}
	}
	unexpected := func(port uint16) bool {
		return !slices.ContainsFunc(protocols, func(p model.Protocol) bool { return len(cover.of(p, port, e.Time)) > 0 })
	}
	if !slices.ContainsFunc(ports, unexpected) {
		return
	}
	e.Drift = model.DriftUnexpected
	// An endpoint of the same port may be open, and drift already.
	key := model.DriftKey{Drift: e.Drift, Target: e.Container.Target(), Protocol: e.Protocol, Port: e.Port, Exposure: e.Exposure}
	endpoint := model.Endpoint{Container: e.Container.ID, Namespace: "burst"}
	j.begin(key, endpoint, &e.Listener, "", e.First)
	j.end(key, endpoint, now, e.Last)
}

// uncover counts a container in the period of its target.
func (j *Judge) uncover(ref *model.ContainerRef, at time.Time) {
	w := j.containers[ref.ID]
	if w == nil || w.uncovered || !w.monitored {
		return
	}
	w.uncovered = true
	l := &model.Listener{Container: ref}
	if j.begin(uncoveredKey(ref), model.Endpoint{Container: ref.ID}, l, "", at) {
		j.emit(model.DriftUncovered, false, l, "", "", at)
	}
}

func uncoveredKey(ref *model.ContainerRef) model.DriftKey {
	return model.DriftKey{Drift: model.DriftUncovered, Target: ref.Target()}
}

// keyOf returns the key of a drift of an endpoint; of none the zero value.
func keyOf(d model.Drift, l *model.Listener) model.DriftKey {
	if d == "" {
		return model.DriftKey{}
	}
	return model.DriftKey{Drift: d, Target: l.Container.Target(), Protocol: l.Protocol, Port: l.Port, Exposure: l.Exposure}
}
