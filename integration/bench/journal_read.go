package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"portwatcher/internal/journal"
	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

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
	open, _, err := r.At(ctx, at)
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
			"another process looks each 200 ms. Questions are asked of all events by a process that opens the journal first; median of %d. The disk is that of the temporary folder.",
		grouped(int64(n.events)), journalContainers, grouped(journalBurst), grouped(journalBurstRate), grouped(journalSteadyRate), journalSteady, journalRounds)},
		[]aim{
			{"events a second, sustained", grouped(int64(events / n.sustained.Seconds())), "", false},
			{fmt.Sprintf("events that were refused of a burst of %s a second", grouped(journalBurstRate)), grouped(int64(n.refused)), "0", n.refused == 0},
			{"from the end of the burst to its last event in the journal", showTime(n.burstBehind), "", false},
			{"what an event adds to the way to standard output (Offer), mean", fmt.Sprintf("%d ns", n.offer.Nanoseconds()), "", false},
			{"slowest Offer of the burst", showTime(n.offerSlowest), "", false},
			{"delay to a reader of this process, median", showTime(median(n.inside)), "", false},
			{"delay to a reader of this process, p99", showTime(quantile(n.inside, 0.99)), "under " + showTime(aimJournalDelay), quantile(n.inside, 0.99) < aimJournalDelay},
			{"delay to a reader of another process, median", showTime(median(n.outside)), "", false},
			{"delay to a reader of another process, p99", showTime(quantile(n.outside, 0.99)), "", false},
			{"size on disk", showMegabytes(n.size), "", false},
			{"bytes of an event on disk", showCount(float64(n.size) / events), fmt.Sprintf("under %d", aimJournalSize), float64(n.size)/events < aimJournalSize},
			{"bytes of an event as a JSON line", showCount(float64(n.lines) / events), "", false},
			{fmt.Sprintf("the last hour of one container (%d events)", n.lastHourFound), showTime(median(n.lastHour)), "under " + showTime(aimJournalQuery), median(n.lastHour) < aimJournalQuery},
			{"the last 100 events of one container", showTime(median(n.last100)), "", false},
			{"all events of one port (no index)", showTime(median(n.onePort)), "", false},
			{fmt.Sprintf("what was open 15 days ago (%d endpoints)", n.found), showTime(median(n.at)), "", false},
		})
}
