package journal

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// The newest labels of a container select all its events, after a restart as well, and
// where later references have none.
func TestLabels(t *testing.T) {
	path, began := temporary(t), time.Now().UTC()
	ref := func(labels map[string]string) *model.ContainerRef {
		return &model.ContainerRef{ID: "aaaabbbbcccc", Name: "web", Labels: labels}
	}
	opened := func(id uint64, c *model.ContainerRef) *model.Event {
		return &model.Event{ID: id, Time: began.Add(time.Duration(id)), Type: model.Opened, Listener: model.Listener{
			Container: c, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(id),
		}}
	}
	other := opened(4, &model.ContainerRef{ID: "1", Name: "db", Labels: map[string]string{"tier": "it's \"data\""}})
	newest := map[string]string{"team": "core", "a b": ""}
	web := []*model.Event{
		opened(1, ref(map[string]string{"team": "net", "old": ""})), opened(2, ref(newest)), opened(3, ref(nil)),
	}
	check := func(what string, s source) {
		t.Helper()
		for selection, want := range map[string][]*model.Event{
			"label:team=core": web, "label:team=c*": web, "label:team=net": nil, "label:old": nil,
			`label:tier`: {other}, "!label:team": {other}, "label:none": nil,
		} {
			wantEvents(t, what+": "+selection, events(t, s, Query{Filter: containers(t, selection)}), want)
		}
		open, _, err := s.At(t.Context(), time.Now(), model.Filter{})
		if err != nil || len(open) != 4 {
			t.Fatalf("%s: %s (%v), want 4 open", what, asJSON(t, open), err)
		}
		for _, o := range open {
			if want := map[string]map[string]string{"web": newest, "db": other.Container.Labels}[o.Container.Name]; !maps.Equal(o.Container.Labels, want) {
				t.Errorf("%s: %s has the labels %v, want %v", what, o.Container.Name, o.Container.Labels, want)
			}
		}
	}
	j := start(t, Options{Path: path})
	j.write(append(web, other)...)
	check("inside", j)
	j.stop()
	j = start(t, Options{Path: path})
	if open := j.Previous().Open; len(open) != 4 || len(open[0].Container.Labels) == 0 {
		t.Errorf("the state before is %+v, want the labels", open)
	}
	web = append(web, opened(5, ref(nil)))
	web[3].Port = 1
	j.write(web[3])
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	check("another process", r)
}

// The containers of a file of schema 1 have no labels until an event brings them.
func TestLabelsAfterAMigration(t *testing.T) {
	j := start(t, Options{Path: schema1(t, "")})
	labelled := Query{Filter: containers(t, "label:team")}
	wantEvents(t, "before", events(t, j, labelled), nil)
	all := readLines[*model.Event](t, "testdata/schema-1.jsonl")
	e := *all[0]
	c := *e.Container
	c.Labels = map[string]string{"team": "core"}
	e.ID, e.Container = j.NextID(), &c
	var want []*model.Event
	for _, one := range append(all, &e) {
		if one.Container != nil && one.Container.Same(&c) {
			want = append(want, one)
		}
	}
	j.write(&e)
	wantEvents(t, "after", events(t, j, labelled), want)
}
