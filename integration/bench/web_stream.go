package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/truth"
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
	w, address, err := st.serve(ctx, sourceEBPF)
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
	facts, err := st.exec(ctx, st.ids[0], "burst", "--base-port", strconv.Itoa(streamPort), "--count", strconv.Itoa(streamCount),
		"--hold", streamHold.String(), "--interval", streamInterval.String())
	if err != nil {
		return errors.Join(err, memory())
	}
	lines, err := seen.await(ctx, 2*streamCount)
	if err == nil && len(lines) == 0 {
		err = errReportedNothing
	}
	if err != nil {
		return errors.Join(err, memory())
	}
	event, err := truth.Parse(string(lines[len(lines)-1].line), time.Now())
	last := event.ID
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
	return s.compare(facts, lines, readers.sampled())
}

// compare compares standard output, and one reader, with what was done.
func (s *streamRun) compare(facts []truth.Fact, lines, read []arrival) error {
	s.done = len(facts)
	s.perSecond = float64(s.done) / facts[len(facts)-1].Time.Sub(facts[0].Time).Seconds()
	reported, err := firstArrivals(lines)
	if err != nil {
		return err
	}
	s.printed = delaysOf(facts, reported)
	if reported, err = firstArrivals(read); err != nil {
		return err
	}
	s.read = delaysOf(facts, reported)
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
		progress("web: %v", late) // the table shows it
		return nil
	}
	return err
}

// askStatus reads the status of the portwatcher that serves at an address.
func askStatus(address string) (status api.Status, err error) {
	return status, askJSON(context.Background(), address, api.PathStatus, &status)
}

// askJSON reads the JSON with which a path is answered.
func askJSON(ctx context.Context, address, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, response.Status, err)
	}
	return nil
}

var errReportedNothing = errors.New("portwatcher has reported nothing")

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

// A streamReader reads the event stream as fast as it can. It parses ids
// alone, to leave the processor to portwatcher.
type streamReader struct {
	response *http.Response
	lines    *bufio.Reader
	sample   bool // keep what comes
	kept     arrivals

	last, missed, repeated atomic.Uint64 // last is an id
	at                     atomic.Int64  // when the last event came, in nanoseconds since 1970
	ended                  atomic.Bool
}

// openReader returns once the stream has begun. It ends with ctx.
func openReader(ctx context.Context, address string, sample bool) (*streamReader, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+api.PathEvents, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", api.MediaTypeStream)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	r := &streamReader{response: response, lines: bufio.NewReaderSize(response.Body, 64<<10), sample: sample}
	if err := r.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("a reader of the stream: %s: %w", response.Status, err), response.Body.Close())
	}
	return r, nil
}

// begin reads the first message, which has the id after which the stream starts.
func (r *streamReader) begin() error {
	for {
		line, err := r.lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		data, found := bytes.CutPrefix(line, []byte("data: "))
		if !found {
			continue
		}
		var hello api.Hello
		if err := json.Unmarshal(data, &hello); err != nil {
			return err
		}
		r.last.Store(hello.LastID)
		return nil
	}
}

// read reads until the stream ends.
func (r *streamReader) read() {
	defer r.ended.Store(true)
	defer r.response.Body.Close()
	for {
		line, err := r.lines.ReadSlice('\n')
		if err != nil {
			return // what is missing is counted
		}
		if r.sample {
			if data, found := bytes.CutPrefix(line, []byte("data: {")); found {
				r.kept.add(line[len(line)-len(data)-1:], time.Now())
			}
		}
		digits, found := bytes.CutPrefix(line, []byte("id: "))
		if !found {
			continue
		}
		id, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 10, 64)
		last := r.last.Load()
		switch {
		case err != nil || id <= last:
			r.repeated.Add(1)
			continue
		case id > last+1:
			r.missed.Add(id - last - 1)
		}
		r.at.Store(time.Now().UnixNano())
		r.last.Store(id)
	}
}

// A stuckReader asks for the stream and takes nothing of it after its start.
type stuckReader struct{ net.Conn }

func openStuck(ctx context.Context, address string) (*stuckReader, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", api.PathEvents, address, api.MediaTypeStream)
	status := make([]byte, len("HTTP/1.1 200"))
	err = conn.SetDeadline(time.Now().Add(streamPatience))
	if err == nil {
		_, err = conn.Write([]byte(request))
	}
	if err == nil {
		_, err = conn.Read(status)
	}
	if err == nil && !strings.HasSuffix(string(status), " 200") {
		err = fmt.Errorf("the answer begins with %q", status)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a slow reader of the stream: %w", err), conn.Close())
	}
	return &stuckReader{conn}, nil
}
