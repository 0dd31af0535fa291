package journal

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// drifted returns a period of an unexpected port of shop/web.
func drifted(port uint16, began time.Time, ended ...time.Time) model.DriftPeriod {
	p := model.DriftPeriod{OpenDrift: model.OpenDrift{
		Drift: model.DriftUnexpected, Since: began, Target: "shop/web", Endpoints: 1,
		Listener: model.Listener{
			Host: "node1", Container: &model.ContainerRef{ID: "w", Name: "shop-web-1", Project: "shop", Service: "web"},
			Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: port,
		},
	}}
	p.SetReach(model.Network, nil)
	if len(ended) > 0 {
		p.Ended = ended[0]
	}
	return p
}

func periodsOf(t *testing.T, j *Journal, q DriftQuery) (ports []uint16) {
	t.Helper()
	all, err := j.Drifts(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		ports = append(ports, all[i].Port)
	}
	return ports
}

// The periods of drifts survive a restart; those that last are part of what it left.
func TestDrifts(t *testing.T) {
	path, clock := temporary(t), newClock()
	at := func(minutes int) time.Time { return clock.Now().UTC().Add(time.Duration(minutes) * time.Minute) }
	j := standing(t, Options{Path: path, Now: clock.Now})
	begin, ended, again := drifted(8080, at(-30)), drifted(8080, at(-30), at(-20)), drifted(8080, at(-30))
	e := &model.Event{ID: j.NextID(), Time: at(-30), Type: model.Opened, Listener: begin.Listener, Drift: begin.Drift}
	writeNow(t, j, Record{Event: e, Drifts: []model.DriftPeriod{begin}})
	writeNow(t, j, Record{Drifts: []model.DriftPeriod{ended, drifted(1, at(-25), at(-24))}})
	if got := periodsOf(t, j, DriftQuery{Since: at(-19)}); got != nil {
		t.Errorf("periods after the end: %d", got)
	}
	writeNow(t, j, Record{Drifts: []model.DriftPeriod{again}})
	for name, test := range map[string]struct {
		q    DriftQuery
		want []uint16
	}{
		"all":             {DriftQuery{}, []uint16{1, 8080}},
		"the last":        {DriftQuery{Limit: 1}, []uint16{1}},
		"since":           {DriftQuery{Since: at(-10)}, []uint16{8080}},
		"until":           {DriftQuery{Until: at(-25)}, []uint16{8080}},
		"a port":          {DriftQuery{Filter: model.Filter{Ports: model.OnePort(model.TCP, 1)}}, []uint16{1}},
		"another kind":    {DriftQuery{Filter: model.Filter{Drifts: []model.Drift{model.DriftWider}}}, nil},
		"another project": {DriftQuery{Filter: model.Filter{Project: "blog"}}, nil},
	} {
		if got := periodsOf(t, j, test.q); !slices.Equal(got, test.want) {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
	unclean(t, j)
	j = standing(t, Options{Path: path, Now: clock.Now})
	if p := j.Previous(); len(p.Drifts) != 1 || asJSON(t, p.Drifts[0]) != asJSON(t, again) {
		t.Errorf("drifts after a restart: %s, want %s", asJSON(t, p.Drifts), asJSON(t, again))
	}
	// A whole state ends what it does not have.
	writeNow(t, j, Record{Full: true})
	all, err := j.Drifts(t.Context(), DriftQuery{})
	if err != nil || len(all) != 2 || all[1].Ended.IsZero() {
		t.Errorf("after a state without drifts: %s, error %v", asJSON(t, all), err)
	}
}

// Events are found by their drift, in blocks of the index and outside of them; a block of schema 3
// has events without drift.
func TestQueryByDrift(t *testing.T) {
	j := start(t, Options{Path: temporary(t), block: 8})
	var want []*model.Event
	for i := range 45 {
		e := &model.Event{ID: j.NextID() + uint64(i), Time: time.Now().UTC(), Type: model.Opened, Listener: drifted(uint16(1+i), time.Now()).Listener}
		switch i % 3 {
		case 1:
			e.Drift, e.Expected = model.DriftWider, "at most loopback"
		case 2:
			e.Type, e.Drift, e.Ended, e.Reason = model.Drifted, model.DriftUnexpected, true, "the expectations have changed"
			want = append(want, e)
		}
		j.write(e)
	}
	wantEvents(t, "unexpected", events(t, j, Query{Filter: model.Filter{Drifts: []model.Drift{model.DriftUnexpected}}}), want)
	last := Query{Filter: model.Filter{Drifts: []model.Drift{model.DriftUnexpected, model.DriftMissing}}, Limit: 3}
	wantEvents(t, "the last", events(t, j, last), want[len(want)-3:])
	if _, e, err := parseKind("7|opened|0|6|network|0"); err != nil || e.Drift != "" {
		t.Errorf("a kind of schema 3: %+v, error %v", e, err)
	}
}

// At has the drift of that time.
func TestDriftAt(t *testing.T) {
	clock := newClock()
	j := standing(t, Options{Path: temporary(t), Now: clock.Now})
	writeNow(t, j)
	if err := j.writer.write(); err != nil { // this run
		t.Fatal(err)
	}
	began := clock.Now().UTC()
	clock.add(time.Minute)
	p := drifted(8080, began.Add(10*time.Second))
	e := &model.Event{ID: j.NextID(), Time: began.Add(time.Second), Type: model.Opened, Listener: p.Listener}
	writeNow(t, j, Record{Event: e})
	writeNow(t, j, Record{Event: &model.Event{ID: e.ID + 1, Time: p.Since, Type: model.Drifted, Listener: p.Listener, Drift: p.Drift}, Drifts: []model.DriftPeriod{p}})
	for second, want := range map[int]model.Drift{5: "", 20: model.DriftUnexpected} {
		open, _, err := j.At(t.Context(), began.Add(time.Duration(second)*time.Second), model.Filter{})
		if err != nil || len(open) != 1 || open[0].Drift != want {
			t.Errorf("after %d s: %s, error %v; want drift %q", second, asJSON(t, open), err, want)
		}
	}
	if open, _, err := j.At(t.Context(), began.Add(20*time.Second), model.Filter{Drifts: []model.Drift{model.DriftWider}}); err != nil || len(open) != 0 {
		t.Errorf("of another kind: %s, error %v", asJSON(t, open), err)
	}
}

// TestMigrateFromSchema3 removes from a journal what schema 4 has.
func TestMigrateFromSchema3(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	e := &model.Event{ID: j.NextID(), Time: time.Now().UTC(), Type: model.Opened, Listener: drifted(80, time.Now()).Listener}
	j.write(e)
	j.stop()
	s, _, err := openStore(path, quiet())
	if err == nil {
		_, err = s.db.Exec(toSchema3)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	j = start(t, Options{Path: path})
	drift := &model.Event{ID: j.NextID(), Time: time.Now().UTC(), Type: model.Opened, Listener: drifted(81, time.Now()).Listener, Drift: model.DriftUnexpected}
	j.offer(Record{Event: drift, Drifts: []model.DriftPeriod{drifted(81, drift.Time)}})
	j.await(drift.ID)
	wantEvents(t, "after the migration", events(t, j, Query{}), []*model.Event{e, drift})
}
