package journal

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// offerAll hands over n events, as fast as the journal takes them, and ends it.
func offerAll(b testing.TB, path string, all *journaltest.Traffic, n int) {
	b.Helper()
	began := all.Now
	j := start(b, Options{Path: path, Now: func() time.Time { return began }})
	for range n {
		for r := (Record{Event: all.Next()}); !j.Offer(r); {
			time.Sleep(time.Millisecond)
		}
	}
	j.await(all.ID)
	j.stop()
}

// BenchmarkWrite is the way of an event from Offer to the disk, sustained.
func BenchmarkWrite(b *testing.B) {
	path := temporary(b)
	all := journaltest.New(50, 1, time.Now().Add(-time.Hour), time.Millisecond)
	b.ReportAllocs()
	b.ResetTimer()
	offerAll(b, path, all, b.N)
	b.StopTimer()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(info.Size())/float64(b.N), "bytes/event")
}

// million is a journal of 1,000,000 events, spread over 30 days and 50
// containers; every benchmark of reading uses the same.
var million = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "portwatcher-journal-")
	return filepath.Join(folder, "journal.db"), err
})

const month = 30 * 24 * time.Hour

func openMillion(b *testing.B) (path string) {
	b.Helper()
	path, err := million()
	if err != nil {
		b.Fatal(err)
	}
	if !exists(path) {
		const n = 1_000_000
		offerAll(b, path, journaltest.New(50, 1, time.Now().Add(-month), month/n), n)
		removeAtEnd = filepath.Dir(path)
	}
	b.ResetTimer()
	return path
}

// BenchmarkLastHour opens the journal and reads the last hour of one container.
func BenchmarkLastHour(b *testing.B) {
	path := openMillion(b)
	n := 0
	for b.Loop() {
		n = readOnce(b, path, Query{Since: time.Now().Add(-time.Hour), Filter: containers(b, "shop_web_7")})
	}
	b.ReportMetric(float64(n), "events")
}

// BenchmarkLast100 opens the journal and reads the last 100 events of one
// container.
func BenchmarkLast100(b *testing.B) {
	path := openMillion(b)
	for b.Loop() {
		if n := readOnce(b, path, Query{Limit: 100, Filter: containers(b, "shop_web_7")}); n != 100 {
			b.Fatalf("%d events, want 100", n)
		}
	}
}

// BenchmarkOnePort reads all of one port, for which there is no index.
func BenchmarkOnePort(b *testing.B) {
	path := openMillion(b)
	n := 0
	for b.Loop() {
		n = readOnce(b, path, Query{Filter: model.Filter{Ports: model.OnePort(0, 5000)}})
	}
	b.ReportMetric(float64(n), "events")
}

func readOnce(b *testing.B, path string, q Query) (n int) {
	r, err := OpenReader(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range r.Events(context.Background(), q) {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkAt opens the journal and asks what was open 15 days ago.
func BenchmarkAt(b *testing.B) {
	path := openMillion(b)
	var open []model.Open
	for b.Loop() {
		r, err := OpenReader(path)
		if err != nil {
			b.Fatal(err)
		}
		if open, _, err = r.At(context.Background(), time.Now().Add(-month/2), model.Filter{}); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(open)), "open")
}
