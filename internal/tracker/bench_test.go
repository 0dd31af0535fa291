package tracker

import (
	"fmt"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// crowd has a number of endpoints of each of some containers.
func crowd(containers, each int, grace time.Duration) (*Tracker, []*model.Container) {
	tr := New(grace)
	tr.OpenNamespace(ns1)
	var all []*model.Container
	s := Snapshot{Began: at(1), Time: at(1), Source: model.SourceSockDiag, New: map[int]Owner{}}
	for i := range containers {
		all = append(all, &model.Container{ID: fmt.Sprintf("container%d", i)})
		for range each {
			n := len(s.Sockets)
			s.New[n] = Owner{Container: all[i]}
			s.Sockets = append(s.Sockets, tcp(uint64(n)+1, uint16(n%60_000)+1))
		}
	}
	tr.Snapshot(nil, ns1, s)
	return tr, all
}

// Of 20,000 endpoints one closes and opens again within the close grace, while
// half of them wait for its end.
func BenchmarkOpenedClosed(b *testing.B) {
	tr, all := crowd(1, 20_000, time.Hour)
	for cookie := range uint64(10_000) {
		tr.Closed(nil, ns1, cookie+1, at(2), model.SourceEBPF)
	}
	var changes []Change
	now := at(3)
	cookie := uint64(1e6)
	b.ReportAllocs()
	for b.Loop() {
		cookie++
		now = now.Add(time.Microsecond)
		changes = tr.Opened(changes[:0], ns1, tcp(cookie, 9), Owner{Container: all[0]}, now, model.SourceEBPF)
		changes, _ = tr.Closed(changes[:0], ns1, cookie, now, model.SourceEBPF)
	}
}

// Nothing has expired of 20,000 endpoints that wait.
func BenchmarkExpire(b *testing.B) {
	tr, _ := crowd(1, 20_000, time.Hour)
	for cookie := range uint64(20_000) {
		tr.Closed(nil, ns1, cookie+1, at(2).Add(time.Duration(cookie)), model.SourceEBPF)
	}
	var changes []Change
	b.ReportAllocs()
	for b.Loop() {
		changes = tr.Expire(changes[:0], at(3))
		if _, ok := tr.NextExpiry(); !ok || len(changes) > 0 {
			b.Fatal("they do not wait any more")
		}
	}
}

func BenchmarkOpenOf(b *testing.B) {
	tr, all := crowd(1000, 20, 0)
	b.ReportAllocs()
	for b.Loop() {
		if open := tr.OpenOf(all[500].ID); len(open) != 20 {
			b.Fatalf("%d are open, want 20", len(open))
		}
	}
}

func BenchmarkCounted(b *testing.B) {
	tr, all := crowd(1000, 20, 0)
	var changes []Change
	c := Counted{Socket: tcp(1e6, 70), Owner: Owner{Container: all[0]}, Opened: 100, Closed: 100, Source: model.SourceEBPF}
	now := at(3)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		c.Socket.Cookie++
		c.LastOpened, c.LastClosed, c.ClosedCookie = now, now, c.Socket.Cookie
		changes = tr.Counted(changes[:0], ns1, c)
	}
}

// Of 20,000 endpoints that wait one expires, opens again and closes.
func BenchmarkExpireOne(b *testing.B) {
	tr, all := crowd(1, 20_000, time.Second)
	var changes []Change
	cookie := uint64(1e6)
	for waiting := range uint64(20_000) {
		tr.Closed(nil, ns1, waiting+1, at(2).Add(time.Duration(waiting)*50*time.Microsecond), model.SourceEBPF)
	}
	now := at(3)
	b.ReportAllocs()
	for b.Loop() {
		cookie++
		now = now.Add(50 * time.Microsecond)
		changes = tr.Expire(changes[:0], now)
		changes = tr.Opened(changes[:0], ns1, tcp(cookie, uint16(cookie%20_000)+1), Owner{Container: all[0]}, now, model.SourceEBPF)
		changes, _ = tr.Closed(changes[:0], ns1, cookie, now, model.SourceEBPF)
	}
}
