package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"portwatcher/internal/server/api"
)

const (
	// The readers of the event stream: the slow ones take nothing.
	streamFast, streamSlow = 150, 50
	// Each port opens and closes, so there are twice as many events.
	streamCount    = 10_000
	streamInterval = time.Millisecond
	streamHold     = 50 * time.Millisecond
	streamPort     = 20_000 // and those after it
	// streamPatience bounds the wait for the last event in each reader, and for
	// the slow ones to be cut off.
	streamPatience = 30 * time.Second
)

// A streamRun is one load, with some readers of the event stream.
type streamRun struct {
	fast, slow int

	perSecond        float64 // events, as they happened
	cpu              float64 // portwatcher's share of one core meanwhile
	memory           memoryUse
	done             int // by the workload
	printed, read    []time.Duration
	missed, repeated int
	cutOff, lost     int
	behind           time.Duration // from the last line on standard output to the last event in the last reader
}

func (n *webNumbers) measureStream(ctx context.Context, st *stage, fast, slow int) (err error) {
	w, address, err := serve(ctx, st, sourceEBPF, true)
	if err != nil {
		return err
	}
	defer func() {
		_, stopErr := w.stop()
		err = errors.Join(err, stopErr)
	}()
	s := streamRun{fast: fast, slow: slow}
	readers, err := openReaders(ctx, address, fast, slow)
	defer func() { err = errors.Join(err, readers.close()) }()
	if err == nil {
		err = s.measure(ctx, st, w, readers)
	}
	if err == nil {
		err = s.readStatus(ctx, address)
	}
	if err == nil {
		n.streams = append(n.streams, s)
	}
	return err
}

// measure makes the events and waits until all readers have them.
func (s *streamRun) measure(ctx context.Context, st *stage, w *watcher, readers *readers) error {
	pid := w.process.Process.Pid
	memory, err := s.memory.follow(ctx, pid)
	if err != nil {
		return err
	}
	seen := &arrivals{}
	w.observe(seen.add)
	before, err := cpuTime(pid)
	if err != nil {
		return errors.Join(err, memory())
	}
	begin := time.Now()
	output, err := st.exec(ctx, "burst", "--base-port", strconv.Itoa(streamPort), "--count", strconv.Itoa(streamCount),
		"--hold", streamHold.String(), "--interval", streamInterval.String())
	if err != nil {
		return errors.Join(err, memory())
	}
	lines, err := seen.await(ctx, 2*streamCount)
	if err == nil && len(lines) == 0 {
		err = errors.New("portwatcher has told of nothing")
	}
	if err != nil {
		return errors.Join(err, memory())
	}
	last, err := eventID(lines[len(lines)-1].line)
	if err == nil {
		err = readers.await(ctx, last)
	}
	s.behind = max(readers.latest().Sub(lines[len(lines)-1].at), 0)
	elapsed := time.Since(begin)
	after, cpuErr := cpuTime(pid)
	if err := errors.Join(err, cpuErr, memory()); err != nil {
		return err
	}
	s.cpu = float64(after-before) / float64(elapsed)
	s.missed, s.repeated = readers.count(last)
	return s.compare(output, lines, readers.sampled())
}

// compare holds standard output, and one reader, against what was done.
func (s *streamRun) compare(output string, lines, read []arrival) error {
	facts, err := readFacts(output)
	if err != nil {
		return err
	}
	s.done = len(facts)
	s.perSecond = float64(s.done) / facts[len(facts)-1].Time.Sub(facts[0].Time).Seconds()
	told, err := firstArrivals(lines)
	if err != nil {
		return err
	}
	s.printed = delaysOf(facts, told)
	if told, err = firstArrivals(read); err != nil {
		return err
	}
	s.read = delaysOf(facts, told)
	return nil
}

// readStatus waits until the slow readers are cut off.
func (s *streamRun) readStatus(ctx context.Context, address string) error {
	var late error
	err := until(ctx, streamPatience, func() error {
		status, err := askStatus(address)
		if err != nil {
			return err
		}
		s.cutOff, s.lost = int(status.Streams.CutOff), int(status.Lost)
		if late = nil; s.cutOff < s.slow {
			late = fmt.Errorf("%d of %d slow readers are cut off", s.cutOff, s.slow)
		}
		return late
	})
	if late != nil && ctx.Err() == nil {
		progress("web: %v", late) // the table tells it
		return nil
	}
	return err
}

// askStatus reads the status of the portwatcher that serves at an address.
func askStatus(address string) (status api.Status, err error) {
	response, err := http.Get("http://" + address + api.PathStatus)
	if err != nil {
		return status, err
	}
	defer response.Body.Close()
	return status, json.NewDecoder(response.Body).Decode(&status)
}

// readers are readers of the event stream.
type readers struct {
	fast  []*streamReader
	slow  []*stuckReader
	group sync.WaitGroup
	end   context.CancelFunc
}

// openReaders returns once each reader has its first answer. The caller closes
// them, also after an error.
func openReaders(ctx context.Context, address string, fast, slow int) (*readers, error) {
	ctx, end := context.WithCancel(ctx)
	r := &readers{end: end}
	for range slow {
		one, err := openStuck(ctx, address)
		if err != nil {
			return r, err
		}
		r.slow = append(r.slow, one)
	}
	for i := range fast {
		one, err := openReader(ctx, address, i == 0)
		if err != nil {
			return r, err
		}
		r.fast = append(r.fast, one)
		r.group.Go(one.read)
	}
	return r, nil
}

func (r *readers) close() (err error) {
	r.end()
	for _, one := range r.slow {
		err = errors.Join(err, one.Close())
	}
	r.group.Wait()
	return err
}

// await waits until all fast readers have an event or have ended.
func (r *readers) await(ctx context.Context, last uint64) error {
	for _, one := range r.fast {
		// What a reader lacks is counted, and no failure.
		err := until(ctx, streamPatience, func() error {
			if id := one.last.Load(); id < last && !one.ended.Load() {
				return fmt.Errorf("a reader has the event %d of %d", id, last)
			}
			return nil
		})
		if ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// latest is when the last event came to the last reader.
func (r *readers) latest() (at time.Time) {
	for _, one := range r.fast {
		if its := time.Unix(0, one.at.Load()); its.After(at) {
			at = its
		}
	}
	return at
}

// count returns how many events up to last the fast readers did not get, and
// how many they got twice or out of order.
func (r *readers) count(last uint64) (missed, repeated int) {
	for _, one := range r.fast {
		missed += int(one.missed.Load() + last - min(one.last.Load(), last))
		repeated += int(one.repeated.Load())
	}
	return missed, repeated
}

// sampled are the events of the first reader.
func (r *readers) sampled() []arrival {
	if len(r.fast) == 0 {
		return nil
	}
	kept := &r.fast[0].kept
	kept.mutex.Lock()
	defer kept.mutex.Unlock()
	return kept.lines
}
