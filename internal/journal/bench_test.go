package journal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func BenchmarkWrite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "journal.db")
	j, err := Open(Options{Path: path, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	t := newTraffic(50, j.NextID(), time.Now().Add(-time.Hour), time.Millisecond)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		e := t.next()
		for !j.Offer(Record{Event: e}) {
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(b.N), "bytes/event")
}
