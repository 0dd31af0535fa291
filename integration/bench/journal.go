package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/journal"
	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

const (
	journalContainers = 50
	journalMonth      = 30 * 24 * time.Hour
	journalBurst      = 100_000
	journalBurstRate  = 50_000 // events a second
	journalSteadyRate = 1000
	journalSteady     = 10 * time.Second

	aimJournalDelay = 100 * time.Millisecond
	aimJournalQuery = 100 * time.Millisecond
	aimJournalSize  = 250 // bytes of an event on disk
)

// journalNumbers are what runJournal measures.
type journalNumbers struct {
	events               int
	sustained            time.Duration // for all events
	size, lines          int64         // bytes on disk, and as JSON lines
	refused              int           // of the burst
	burstBehind          time.Duration // from the last Offer of the burst to its end in the journal
	offer, offerSlowest  time.Duration
	inside, outside      []time.Duration // from Offer to a reader
	lastHour, last100    []time.Duration
	at, onePort          []time.Duration
	lastHourFound, found int
}

// runJournal measures the record on disk: how fast it takes events, how late a
// reader sees them, how much space they take, and how long questions last.
func runJournal(ctx context.Context, s *settings, r *report) (err error) {
	folder, err := os.MkdirTemp("", "portwatcher-bench-journal-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	n := &journalNumbers{events: s.journalEvents}
	path := filepath.Join(folder, "month.db")
	progress("journal: %s events", showCount(n.events))
	if err := n.measureSustained(ctx, path); err != nil {
		return err
	}
	progress("journal: questions")
	if err := n.measureQueries(ctx, path); err != nil {
		return err
	}
	progress("journal: a burst of %s events", showCount(journalBurst))
	if err := n.measureBurst(ctx, filepath.Join(folder, "burst.db")); err != nil {
		return err
	}
	progress("journal: delay at %s events a second", showCount(journalSteadyRate))
	if err := n.measureDelay(ctx, filepath.Join(folder, "delay.db")); err != nil {
		return err
	}
	r.add(n.table())
	return nil
}

// withJournal runs f with a journal that is running, whose clock began in the
// past where began is there.
func withJournal(ctx context.Context, path string, began time.Time, f func(j *journal.Journal) error) error {
	logger := logrus.New()
	logger.SetOutput(os.Stderr)
	start := time.Now()
	j, err := journal.Open(journal.Options{Path: path, Logger: logger, Now: func() time.Time { return began.Add(time.Since(start)) }})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	err = f(j)
	stop()
	return errors.Join(err, <-done, j.Close())
}

// awaitID waits until an event is in the journal.
func awaitID(ctx context.Context, j *journal.Journal, id uint64) error {
	for {
		committed := j.Committed()
		if j.LastID() >= id {
			return nil
		}
		select {
		case <-committed:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute):
			return errors.Join(fmt.Errorf("event %d is not in the journal after a minute", id), j.Err())
		}
	}
}

// measureSustained writes a month as fast as the journal takes it.
func (n *journalNumbers) measureSustained(ctx context.Context, path string) error {
	began := time.Now().Add(-journalMonth)
	all := journaltest.New(journalContainers, 1, began, journalMonth/time.Duration(n.events))
	err := withJournal(ctx, path, began, func(j *journal.Journal) error {
		start := time.Now()
		for range n.events {
			for r := (journal.Record{Event: all.Next()}); !j.Offer(r); {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				time.Sleep(time.Millisecond)
			}
		}
		err := awaitID(ctx, j, all.ID)
		n.sustained = time.Since(start)
		return err
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	n.size = info.Size()
	n.lines, err = countLines(n.events, began)
	return err
}

// countLines returns how many bytes the same events are as JSON lines.
func countLines(events int, began time.Time) (bytes int64, err error) {
	all := journaltest.New(journalContainers, 1, began, journalMonth/time.Duration(events))
	counter := &counting{}
	encoder := json.NewEncoder(counter)
	for range events {
		if err := encoder.Encode(all.Next()); err != nil {
			return 0, err
		}
	}
	return counter.bytes, nil
}

// counting is a writer that only counts.
type counting struct{ bytes int64 }

var _ io.Writer = (*counting)(nil)

func (c *counting) Write(b []byte) (int, error) { c.bytes += int64(len(b)); return len(b), nil }

// measureBurst offers events at a steady high rate.
func (n *journalNumbers) measureBurst(ctx context.Context, path string) error {
	all := journaltest.New(journalContainers, 1, time.Now(), 0)
	events := make([]*model.Event, journalBurst)
	for i := range events {
		events[i] = all.Next()
	}
	return withJournal(ctx, path, time.Now(), func(j *journal.Journal) error {
		start := time.Now()
		last := uint64(0)
		for i, e := range events {
			for time.Since(start) < time.Duration(i)*time.Second/journalBurstRate {
				time.Sleep(time.Millisecond)
			}
			before := time.Now()
			taken := j.Offer(journal.Record{Event: e})
			took := time.Since(before)
			n.offer += took
			n.offerSlowest = max(n.offerSlowest, took)
			if !taken {
				n.refused++
				continue
			}
			last = e.ID
		}
		n.offer /= journalBurst
		end := time.Now()
		err := awaitID(ctx, j, last)
		n.burstBehind = time.Since(end)
		return err
	})
}

// journalRounds is how often each question is asked.
const journalRounds = 15

// measureQueries asks as `portwatcher events` and `portwatcher ports --at` do:
// opening the journal is in the time.
func (n *journalNumbers) measureQueries(ctx context.Context, path string) error {
	selection, err := model.ParseSelection("shop_web_7")
	if err != nil {
		return err
	}
	web := model.Filter{Containers: selection}
	transientPort := model.Filter{Ports: model.OnePort(0, 5000)}
	for range journalRounds {
		for _, question := range []struct {
			query func() journal.Query
			times *[]time.Duration
			found *int
		}{
			{func() journal.Query {
				return journal.Query{Since: time.Now().Add(-time.Hour), Filter: web}
			}, &n.lastHour, &n.lastHourFound},
			{func() journal.Query { return journal.Query{Limit: 100, Filter: web} }, &n.last100, new(int)},
			{func() journal.Query { return journal.Query{Filter: transientPort} }, &n.onePort, new(int)},
		} {
			took, found, err := ask(ctx, path, question.query())
			if err != nil {
				return err
			}
			*question.times = append(*question.times, took)
			*question.found = found
		}
		took, found, err := askAt(ctx, path, time.Now().Add(-journalMonth/2))
		if err != nil {
			return err
		}
		n.at = append(n.at, took)
		n.found = found
	}
	return nil
}

func ask(ctx context.Context, path string, q journal.Query) (took time.Duration, found int, err error) {
	start := time.Now()
	r, err := journal.OpenReader(path)
	if err != nil {
		return 0, 0, err
	}
	for _, failed := range r.Events(ctx, q) {
		found++
		err = errors.Join(err, failed)
	}
	took = time.Since(start)
	return took, found, errors.Join(err, r.Close())
}

func askAt(ctx context.Context, path string, at time.Time) (took time.Duration, found int, err error) {
	start := time.Now()
	r, err := journal.OpenReader(path)
	if err != nil {
		return 0, 0, err
	}
	open, _, err := r.At(ctx, at, model.Filter{})
	took = time.Since(start)
	return took, len(open), errors.Join(err, r.Close())
}

// measureDelay offers events at a moderate rate, and notes when readers in this
// process and beside it have them.
func (n *journalNumbers) measureDelay(ctx context.Context, path string) error {
	count := int(journalSteady.Seconds() * journalSteadyRate)
	return withJournal(ctx, path, time.Now(), func(j *journal.Journal) error {
		outside, err := journal.OpenReader(path)
		if err != nil {
			return err
		}
		first := j.NextID()
		offered := make([]time.Time, count)
		var mutex sync.Mutex // guards offered
		delaysOf := func(events iter.Seq2[*model.Event, error]) (delays []time.Duration, err error) {
			for e, err := range events {
				if err != nil {
					return nil, err
				}
				mutex.Lock()
				delays = append(delays, time.Since(offered[e.ID-first]))
				mutex.Unlock()
			}
			return delays, ctx.Err()
		}
		var group sync.WaitGroup
		var insideErr, outsideErr error
		all := journal.Query{Limit: count, FromStart: true}
		group.Go(func() { n.inside, insideErr = delaysOf(j.Follow(ctx, all)) })
		group.Go(func() { n.outside, outsideErr = delaysOf(outside.Follow(ctx, all)) })
		traffic := journaltest.New(journalContainers, first, time.Now(), time.Second/journalSteadyRate)
		tick := time.NewTicker(time.Second / journalSteadyRate)
		defer tick.Stop()
		for i := range offered {
			<-tick.C
			mutex.Lock()
			offered[i] = time.Now()
			mutex.Unlock()
			if !j.Offer(journal.Record{Event: traffic.Next()}) {
				err = errors.Join(err, fmt.Errorf("event %d was refused at %d events a second", i, journalSteadyRate))
				break
			}
		}
		if err == nil {
			group.Wait()
		}
		return errors.Join(err, insideErr, outsideErr, outside.Close())
	})
}

func (n *journalNumbers) table() table {
	events := float64(n.events)
	return aimTable("The journal", []string{fmt.Sprintf(
		"%s events over 30 days in %d containers: endpoints that open and close, each with a process, written as fast as the journal takes them. "+
			"The burst is %s events at %s a second. Delays are from Offer, which does not wait for the disk, to a reader that follows, at %s events a second for %s; "+
			"another process reads each 200 ms. Questions are asked of all events by a process that opens the journal first; median of %d. The disk is that of the temporary folder.",
		showCount(n.events), journalContainers, showCount(journalBurst), showCount(journalBurstRate), showCount(journalSteadyRate),
		journalSteady, journalRounds)},
		[]aim{
			value("events a second, sustained", showCount(int64(events/n.sustained.Seconds()))),
			{fmt.Sprintf("events that were refused of a burst of %s a second", showCount(journalBurstRate)), showCount(n.refused), "0", n.refused == 0},
			value("from the end of the burst to its last event in the journal", showTime(n.burstBehind)),
			value("what an event adds to the way to standard output (Offer), mean", fmt.Sprintf("%d ns", n.offer.Nanoseconds())),
			value("slowest Offer of the burst", showTime(n.offerSlowest)),
			value("delay to a reader of this process, median", showTime(median(n.inside))),
			below("delay to a reader of this process, p99", quantile(n.inside, 0.99), aimJournalDelay),
			value("delay to a reader of another process, median", showTime(median(n.outside))),
			value("delay to a reader of another process, p99", showTime(quantile(n.outside, 0.99))),
			value("size on disk", showMegabytes(n.size)),
			{"bytes of an event on disk", showMean(float64(n.size) / events), fmt.Sprintf("under %d", aimJournalSize), float64(n.size)/events < aimJournalSize},
			value("bytes of an event as a JSON line", showMean(float64(n.lines)/events)),
			below(fmt.Sprintf("the last hour of one container (%d events)", n.lastHourFound), median(n.lastHour), aimJournalQuery),
			value("the last 100 events of one container", showTime(median(n.last100))),
			value("all events of one port (no index)", showTime(median(n.onePort))),
			value(fmt.Sprintf("what was open 15 days ago (%d endpoints)", n.found), showTime(median(n.at))),
		})
}
