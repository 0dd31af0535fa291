package server

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// TestTheRealJournal reads by pages, by stream and at a time what a journal
// records.
func TestTheRealJournal(t *testing.T) {
	logger, _ := quietLogger()
	record, err := journal.Open(journal.Options{Path: filepath.Join(t.TempDir(), "journal.db"), Logger: logger, BootID: "boot", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	written := make(chan error, 1)
	go func() { written <- record.Run(ctx) }()
	s := start(t, func(o *Options, l *limits) { o.History, l.batch, l.ring = FromJournal(record), 32, 64 })
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-written; err != nil {
			t.Error(err)
		}
		if err := record.Close(); err != nil {
			t.Error(err)
		}
	})

	first := record.NextID()
	next := first
	offer := func(count int) {
		for range count {
			e := numbered(int(next - first))
			e.ID, e.Time = next, time.Now().UTC()
			next++
			if !record.Offer(journal.Record{Event: e}) {
				t.Error("the journal refuses an event")
			}
		}
	}
	offer(300)
	kernel.Eventually(t, "300 events are recorded", func() bool { return record.LastID() == next-1 })

	one, filtered := s.stream(t, "after=0"), s.stream(t, "after=0&container=db")
	expect[api.Hello](one, api.StreamHello)
	expect[api.Hello](filtered, api.StreamHello)
	offer(300)
	for id := first; id < next; id++ {
		one.expectID(id)
		if (id-first)%2 == 1 {
			filtered.expectID(id)
		}
	}
	for query, want := range map[string]int{"limit=5000": 600, "container=shop*&limit=7": 300, "port=1-10&exposure=network&protocol=tcp&limit=3": 10, "project=nothing": 0, "since=1h&limit=100": 600, "until=1h": 0,
		"until=0001-01-01T00:00:00Z": 0, "since=0001-01-01T00:00:00Z&limit=100": 600, "since=9999-12-31T23:59:59Z": 0, "until=9999-12-31T23:59:59Z&limit=100": 600} {
		count := 0
		for path := "/api/v1/events?" + query; path != ""; {
			page := decode[api.Events](t, s, path)
			count += len(page.Events)
			path = nextPage(t, path, &page)
		}
		if count != want {
			t.Errorf("%s: %d events, want %d", query, count, want)
		}
	}
	offer(2)
	one.expectID(next - 2)
	one.expectID(next - 1)
	at := time.Now().UTC().Format(time.RFC3339Nano)
	if answer := decode[api.Ports](t, s, "/api/v1/ports?at="+at+"&container=db&port=2"); len(answer.Ports) != 1 || !*answer.Watching {
		t.Errorf("%+v", answer)
	}
	for _, unknown := range []string{
		"2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
		"0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00",
	} {
		if p := s.problem(t, http.StatusNotFound, "/api/v1/ports?at="+unknown); p.Parameter != "at" || p.Value != strings.ReplaceAll(unknown, "%2B", "+") {
			t.Errorf("%+v", p)
		}
	}
	status := decode[api.Status](t, s, "/api/v1/status")
	if status.Journal.FirstID != first || status.Journal.LastID != next-1 || status.Journal.Written == 0 || status.Journal.InMemory {
		t.Errorf("%+v", status.Journal)
	}
	beginning := s.stream(t, "since=0001-01-01T00:00:00Z")
	expect[api.Hello](beginning, api.StreamHello)
	beginning.expectID(first)
	reset := s.stream(t, "after=9000000000000000000")
	expect[api.Hello](reset, api.StreamHello)
	if got := expect[api.Reset](reset, api.StreamReset); got.FirstID != first {
		t.Errorf("%+v", got)
	}
	reset.expectID(first)
}
