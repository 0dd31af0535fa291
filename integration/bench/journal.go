package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	progress("journal: %s events", grouped(int64(n.events)))
	if err := n.measureSustained(ctx, path); err != nil {
		return err
	}
	progress("journal: questions")
	if err := n.measureQueries(ctx, path); err != nil {
		return err
	}
	progress("journal: a burst of %s events", grouped(journalBurst))
	if err := n.measureBurst(ctx, filepath.Join(folder, "burst.db")); err != nil {
		return err
	}
	progress("journal: delay at %s events a second", grouped(journalSteadyRate))
	if err := n.measureDelay(ctx, filepath.Join(folder, "delay.db")); err != nil {
		return err
	}
	r.add(n.table())
	return nil
}

// withJournal runs f with a journal that is running, whose clock began in the
// past where began says so.
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
