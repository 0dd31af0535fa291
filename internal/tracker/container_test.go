package tracker

import (
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

func TestOpenOf(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil}, seen{2, 22, web, nil}, seen{3, 5432, db, nil})
	expect(t, describe(tr.OpenOf("web")), "1 opened web:22 [] sock_diag", "1 opened web:80 [] sock_diag")
	expect(t, describe(tr.OpenOf("db")), "1 opened db:5432 [] sock_diag")
	expect(t, describe(tr.OpenOf("none")))
	tr.DropOf("web", func(e model.Endpoint) bool { return e.Port == 22 })
	expect(t, describe(tr.OpenOf("web")), "1 opened web:80 [] sock_diag")
	expect(t, describe(tr.CloseContainer(nil, "web", at(2), model.SourceEngine)), "2 closed web:80 [] engine since 1")
	expect(t, describe(tr.OpenOf("web")))
	if len(tr.containers) != 1 {
		t.Errorf("%d containers are indexed, want db alone", len(tr.containers))
	}
}

// What can change in OpenOf, and in no other container's.
func TestRevisionOf(t *testing.T) {
	tr := tracking(2 * time.Second)
	dump(tr, ns1, 1, seen{9, 5432, db, nil})
	other, last := tr.RevisionOf("db"), tr.RevisionOf("web")
	for _, step := range []struct {
		name  string
		do    func()
		rises bool
	}{
		{"opened", func() { exactly(tr, 1, 1, 80) }, true},
		{"opened again", func() { exactly(tr, 1, 1, 80) }, false},
		{"a process is found", func() { held(tr, ns1, 2, of(1, 10)) }, true},
		{"the same process is found", func() { held(tr, ns1, 3, of(1, 10)) }, false},
		{"another takes it over", func() { held(tr, ns1, 4, of(1, 11)) }, true},
		{"a snapshot", func() { dump(tr, ns1, 5, seen{1, 80, web, nil}, seen{9, 5432, db, nil}) }, false},
		{"renamed", func() { tr.UpdateContainer(&model.Container{ID: "web", Name: "front"}) }, true},
		{"waits", func() { ends(tr, 6, 1) }, true},
		{"comes back", func() { exactly(tr, 7, 2, 80) }, true},
		{"dropped", func() { tr.DropOf("web", func(model.Endpoint) bool { return true }) }, true},
		{"opened anew", func() { exactly(tr, 8, 3, 80) }, true},
		{"waits again", func() { ends(tr, 9, 3) }, true},
	} {
		step.do()
		now := tr.RevisionOf("web")
		if (now > last) != step.rises || now < last {
			t.Errorf("%s: revision %d after %d; want it to rise: %v", step.name, now, last, step.rises)
		}
		last = now
	}
	tr.Expire(nil, at(20))
	if now := tr.RevisionOf("web"); now < last {
		t.Errorf("revision %d after %d at the end of the grace", now, last)
	}
	if now := tr.RevisionOf("db"); now != other {
		t.Errorf("the revision of the other container rose from %d to %d", other, now)
	}
}

// An endpoint belongs to the namespace of its last socket.
func TestEndpointMovesBetweenNamespaces(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil})
	dump(tr, ns2, 2, seen{1, 80, web, nil})
	expect(t, describe(tr.OpenIn(ns1)))
	expect(t, describe(tr.OpenIn(ns2)), "1 opened web:80 [] sock_diag")
	expect(t, describe(tr.CloseNamespace(nil, ns2, at(3), model.SourceEngine)))
	expect(t, describe(tr.OpenIn(ns1)), "1 opened web:80 [] sock_diag")
	if open := tr.Open(); open[0].Namespace != ns1 {
		t.Errorf("it is in %v, want %v", open[0].Namespace, ns1)
	}
}

// What comes after the end of a namespace, or before its beginning, changes
// nothing, and makes nothing.
func TestClosedNamespace(t *testing.T) {
	tr := tracking(0)
	dump(tr, ns1, 1, seen{1, 80, web, nil})
	state := states(tr)[0]
	tr.OpenNamespace(ns1) // open already
	expect(t, describe(tr.CloseNamespace(nil, ns1, at(2), model.SourceEngine)), "2 closed web:80 [] engine since 1")
	if tr.HasNamespace(ns1) || !tr.HasNamespace(ns2) {
		t.Error("the first namespace is closed, the second is open")
	}
	expect(t, dump(tr, ns1, 3, seen{1, 80, web, nil}))
	expect(t, exactly(tr, 3, 2, 81))
	expect(t, ends(tr, 3, 1))
	expect(t, counts(tr, tally{opened: 1, last: 1, lastAt: 3}))
	if changes, reported := tr.Transient(nil, ns1, tcp(4, 80), Owner{Container: web}, at(3), model.SourceDestroy); reported || len(changes) > 0 {
		t.Errorf("a transient led to %v", describe(changes))
	}
	if tr.Failed(ns1) || tr.Stale(ns1) || tr.Restore(web, &state, at(1)) || len(tr.Unknown(nil, ns1, []model.Socket{tcp(1, 80)})) > 0 {
		t.Error("a namespace that is closed fails, is restored or has unknown sockets")
	}
	expect(t, held(tr, ns1, 4, of(1, 10)))
	if fresh, more := tr.Fresh(nil, ns1, at(5)); len(fresh) > 0 || more {
		t.Errorf("fresh are %v", fresh)
	}
	if tr.HasNamespace(ns1) || len(tr.endpoints)+len(tr.containers) > 0 {
		t.Error("it was made again")
	}
	tr.OpenNamespace(ns1)
	expect(t, dump(tr, ns1, 4, seen{1, 80, web, nil}), "4 opened web:80 [] sock_diag")
}

// An endpoint whose wait begins anew expires after those that closed meanwhile.
func TestExpiryOrder(t *testing.T) {
	tr := tracking(5 * time.Second)
	for number := range uint16(4) {
		exactly(tr, 1, uint64(number)+1, 80+number)
	}
	for number := range uint64(4) {
		ends(tr, 2+float64(number), number+1)
	}
	tr.Transient(nil, ns1, tcp(9, 80), Owner{Container: web}, at(6), model.SourceDestroy) // 80 was open again
	exactly(tr, 6, 11, 81)                                                                // and 81 is
	for _, step := range []struct {
		next float64
		want []string
	}{
		{9, []string{"4 closed web:82 [] ebpf since 1"}},
		{10, []string{"5 closed web:83 [] ebpf since 1"}},
		{11, []string{"6 closed web:80 [] destroy since 1"}},
	} {
		next, ok := tr.NextExpiry()
		if !ok || next != at(step.next) {
			t.Errorf("next expiry %v, %v; want second %v", next.Sub(start), ok, step.next)
		}
		expect(t, describe(tr.Expire(nil, next-1)))
		expect(t, describe(tr.Expire(nil, next)), step.want...)
	}
	if next, ok := tr.NextExpiry(); ok {
		t.Errorf("an expiry at %v is left", next.Sub(start))
	}
}

// The grace may change while endpoints wait for its end.
func TestSetGrace(t *testing.T) {
	tr := tracking(time.Hour)
	exactly(tr, 1, 1, 80)
	ends(tr, 2, 1)
	tr.SetGrace(0)
	if next, ok := tr.NextExpiry(); !ok || next != at(2) {
		t.Errorf("next expiry %v, %v; want second 2", next.Sub(start), ok)
	}
	expect(t, describe(tr.Expire(nil, at(2))), "2 closed web:80 [] ebpf since 1")
}

// A moment before the start of the host is a moment as any other.
func TestRestoreFromAnEarlierBoot(t *testing.T) {
	old := tracking(0)
	dump(old, ns1, 1, seen{1, 80, web, nil})
	tr := tracking(0)
	if !tr.Restore(web, &states(old)[0], clock.Instant(-5*time.Second)) {
		t.Fatal("it was not restored")
	}
	expect(t, resume(tr, ns1, 2, model.SourceSockDiag, seen{1, 80, web, nil}))
	changes, _ := tr.Closed(nil, ns1, 1, at(3), model.SourceDestroy)
	if len(changes) != 1 || changes[0].OpenedAt != clock.Instant(-5*time.Second) {
		t.Errorf("%+v; want one close, with the moment of before", changes)
	}
}
