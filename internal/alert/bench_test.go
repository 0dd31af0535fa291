package alert

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/journal/journaltest"
)

// manyRules are 50 rules as people write them, of which few match, and 5 receivers.
func manyRules() string {
	var text strings.Builder
	text.WriteString("rules:\n")
	whens := []string{
		`drift == "wider"`, `drift == "unexpected" && exposure in ["published", "host"]`, `type == "gap"`,
		`type == "opened" && outside && port < 1024 && process != "nginx"`, `project == "shop" && service == "db" && exposure != "network"`,
		`type == "closed" && exposure == "published" && open_seconds > 3600`, `image startsWith "registry.example.com/" && outside`,
		`any(processes, .name == "nc" || .executable endsWith "/ncat")`, `container.labels["team"] == "core" && transient`, `time.Hour() < 6 && type == "changed"`,
	}
	for i := range 50 {
		fmt.Fprintf(&text, "  - {name: rule-%d, when: '%s', to: [r%d]}\n", i, whens[i%len(whens)], i%5)
	}
	text.WriteString("receivers:\n")
	for i := range 5 {
		fmt.Fprintf(&text, "  - {name: r%d, webhook: {url: \"http://localhost\"}}\n", i)
	}
	return text.String()
}

// BenchmarkRule is the evaluation of one rule for one event.
func BenchmarkRule(b *testing.B) {
	c := newCore(parse(b, manyRules()), surroundings{})
	all := journaltest.New(50, 1, time.Now(), time.Millisecond)
	for range 1000 {
		c.event(all.Next())
	}
	b.ReportAllocs()
	count := 0
	for b.Loop() {
		if count%len(c.config.Rules) == 0 {
			c.begin(all.Next())
		}
		if _, err := c.machine.matches(c.config.Rules[count%len(c.config.Rules)], &c.facts); err != nil {
			b.Fatal(err)
		}
		count++
	}
}

// BenchmarkEvent is an event with 50 rules.
func BenchmarkEvent(b *testing.B) {
	c := newCore(parse(b, manyRules()), surroundings{})
	all := journaltest.New(50, 1, time.Now(), time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		c.event(all.Next())
	}
}

// deaf is a receiver that does not answer, and others that take everything.
type deaf struct {
	name string
	dead bool
}

func (d *deaf) Name() string { return d.name }
func (d *deaf) Kind() string { return notify.KindWebhook }
func (d *deaf) Close() error { return nil }

func (d *deaf) Send(ctx context.Context, _ *notify.Notification) notify.Outcome {
	if d.dead {
		<-ctx.Done()
		return notify.Outcome{Err: ctx.Err()}
	}
	return notify.Outcome{Delivered: true}
}

// BenchmarkStorm records 10,000 events a second for five seconds, without alerts, and with 50
// rules and 5 receivers of which one is dead. It reports what an Offer costs the capture, how many
// events were refused, how far evaluation is behind in the end, and the memory in use.
func BenchmarkStorm(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[with], func(b *testing.B) {
			for b.Loop() {
				stormBench(b, with)
			}
		})
	}
}

const (
	stormRate = 10_000 // events a second
	stormTime = 5 * time.Second
)

func stormBench(b *testing.B, with bool) {
	log := logrus.New()
	log.SetLevel(logrus.PanicLevel)
	j, err := journal.Open(journal.Options{Path: filepath.Join(b.TempDir(), "journal.db"), Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	recording, endRecord := context.WithCancel(b.Context())
	var recorder, evaluator sync.WaitGroup
	recorder.Go(func() {
		if err := j.Run(recording); err != nil {
			b.Error(err)
		}
	})
	ctx, end := context.WithCancel(b.Context())
	if with {
		setup, err := Prepare(parse(b, manyRules()), func(r notify.ReceiverConfig) (notify.Receiver, error) {
			return &deaf{r.Name, r.Name == "r0"}, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		a := New(Options{Journal: j, Setup: setup, Logger: log})
		evaluator.Go(func() {
			if err := a.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	var most atomic.Uint64
	evaluator.Go(func() { // the memory in use, from time to time
		var stats runtime.MemStats
		for ctx.Err() == nil {
			runtime.ReadMemStats(&stats)
			most.Store(max(most.Load(), stats.HeapInuse))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	all := journaltest.New(50, j.NextID(), time.Now(), time.Second/stormRate)
	var offering time.Duration
	refused, count := 0, 0
	began := time.Now()
	for time.Since(began) < stormTime {
		due := int(time.Since(began) * stormRate / time.Second)
		for ; count < due; count++ {
			r := journal.Record{Event: all.Next()}
			at := time.Now()
			if !j.Offer(r) {
				refused++
			}
			offering += time.Since(at)
		}
		time.Sleep(time.Millisecond)
	}
	last := all.ID
	cursor, _, err := j.Cursor(CursorName)
	if err != nil {
		b.Fatal(err)
	}
	lag := j.Stats().Lag
	end()
	evaluator.Wait()
	endRecord()
	recorder.Wait()
	if err := j.Close(); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(offering.Nanoseconds())/float64(count), "ns/offer")
	b.ReportMetric(float64(count)/stormTime.Seconds(), "events/s")
	b.ReportMetric(float64(refused), "refused")
	b.ReportMetric(lag.Seconds()*1000, "ms-journal-lag")
	b.ReportMetric(float64(most.Load())/(1<<20), "MiB-heap")
	if with {
		b.ReportMetric(float64(last-min(cursor, last)), "events-after-saved-cursor")
	}
	b.ReportMetric(0, "ns/op") // the time is that of the script
}
