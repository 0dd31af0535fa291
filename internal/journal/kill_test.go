package journal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// stormVariable makes the test binary a process that writes to the journal at
// that path until it is killed.
const stormVariable = "PORTWATCHER_TEST_STORM"

// removeAtEnd is a folder that several benchmarks share; empty: none.
var removeAtEnd string

func TestMain(m *testing.M) {
	if path := os.Getenv(stormVariable); path != "" {
		if err := storm(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	status := m.Run()
	if removeAtEnd != "" {
		if err := os.RemoveAll(removeAtEnd); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// storm writes as fast as it can. It prints the id that it begins with, and
// then each that is committed.
func storm(path string) error {
	j, err := Open(Options{Path: path, Logger: quiet()})
	if err != nil {
		return err
	}
	ctx, end := context.WithTimeout(context.Background(), time.Minute) // at the latest
	defer end()
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	fmt.Println(j.NextID())
	go func() {
		for ctx.Err() == nil {
			committed := j.Committed()
			fmt.Println(j.LastID())
			<-committed
		}
	}()
	all := journaltest.New(5, j.NextID(), time.Now(), time.Microsecond)
	for ctx.Err() == nil {
		for r := (Record{Event: all.Next()}); !j.Offer(r) && ctx.Err() == nil; {
			time.Sleep(time.Millisecond)
		}
	}
	return <-done
}

func TestKillNine(t *testing.T) {
	path := temporary(t)
	random := newRandom(uint64(time.Now().UnixNano()))
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	s := survivor{path: path, open: map[model.Endpoint]*model.Event{}}
	for range rounds {
		first, committed := killStorm(t, path, time.Duration(random.Int64N(int64(100*time.Millisecond))))
		if first <= s.last {
			t.Fatalf("it began with id %d, but %d was there", first, s.last)
		}
		s.check(t, first, committed)
	}
	if got := len(events(t, s.reader(t), Query{})); got != s.count {
		t.Errorf("%d events are there in the end, want %d", got, s.count)
	}
}

// survivor is what a journal should have after its process was killed.
type survivor struct {
	path  string
	open  map[model.Endpoint]*model.Event
	last  uint64
	count int
}

func (s *survivor) reader(t *testing.T) *Reader {
	t.Helper()
	r, err := OpenReader(s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// stormProcess is a process that writes to a journal until it is killed.
type stormProcess struct {
	*exec.Cmd
	out     io.ReadCloser
	lines   *bufio.Scanner // of out
	failure strings.Builder
}

// startStorm starts a process that writes to the journal at path, and waits
// until it has committed something. It ends with ctx.
func startStorm(ctx context.Context, t *testing.T, path string) (s *stormProcess, first, committed uint64) {
	t.Helper()
	s = &stormProcess{Cmd: exec.CommandContext(ctx, os.Args[0])}
	s.Env = append(os.Environ(), stormVariable+"="+path)
	s.Stderr = &s.failure
	var err error
	if s.out, err = s.StdoutPipe(); err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewScanner(s.out)
	first, ok := s.number()
	for ok && committed < first {
		committed, ok = s.number()
	}
	if !ok {
		io.Copy(io.Discard, s.out)
		t.Fatalf("the child: %v: %s", s.Wait(), s.failure.String())
	}
	return s, first, committed
}

// number returns the next number that the process prints: its first id, and after
// that the last one that it has committed.
func (s *stormProcess) number() (n uint64, ok bool) {
	if !s.lines.Scan() {
		return 0, false
	}
	_, err := fmt.Sscan(s.lines.Text(), &n)
	return n, err == nil
}

// killStorm lets a process write for a while and kills it.
func killStorm(t *testing.T, path string, after time.Duration) (first, committed uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child, first, committed := startStorm(ctx, t, path) // and then it may end anywhere
	timer := time.AfterFunc(after, func() { child.Process.Kill() })
	defer timer.Stop()
	for {
		n, ok := child.number()
		if !ok {
			break
		}
		committed = n
	}
	child.Wait() // it was killed
	return first, committed
}

// check checks that the ids of the last process from first to committed are
// there, without holes and after all others, and that the state is what the
// events make it.
func (s *survivor) check(t *testing.T, first, committed uint64) {
	t.Helper()
	for _, e := range events(t, s.reader(t), Query{AfterID: s.last}) {
		if e.ID < first || e.ID > first && e.ID != s.last+1 {
			t.Fatalf("event %d comes after %d; the last process began with %d", e.ID, s.last, first)
		}
		s.last = e.ID
		s.count++
		if e.Type == model.Opened {
			s.open[e.Endpoint()] = e
		} else {
			delete(s.open, e.Endpoint())
		}
	}
	if s.last < committed {
		t.Fatalf("the last event is %d, but %d was committed", s.last, committed)
	}
	s.checkState(t)
}

func (s *survivor) checkState(t *testing.T) {
	t.Helper()
	copied := copyJournal(t, s.path)
	j, err := Open(Options{Path: copied, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	p := j.Previous()
	if p.Clean || p.Corrupt != "" || len(p.Open) != len(s.open) {
		t.Fatalf("clean %v, corrupt %q, %d open: want an unclean stop with %d open", p.Clean, p.Corrupt, len(p.Open), len(s.open))
	}
	for i := range p.Open {
		e := s.open[p.Open[i].Endpoint()]
		if e == nil || !e.Time.Equal(p.Open[i].OpenedAt) || asJSON(t, e.Listener) != asJSON(t, p.Open[i].Listener) {
			t.Fatalf("open %s: the event is %s", asJSON(t, p.Open[i]), asJSON(t, e))
		}
	}
	if j.NextID() <= s.last {
		t.Fatalf("next id %d, but %d was used", j.NextID(), s.last)
	}
}

// TestReaderDuringAStorm reads what another process writes: a hole or a repeat
// would be an event that was missed.
func TestReaderDuringAStorm(t *testing.T) {
	path := temporary(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	child, _, _ := startStorm(ctx, t, path)
	var draining sync.WaitGroup
	draining.Go(func() { io.Copy(io.Discard, child.out) })
	defer func() {
		child.Process.Kill()
		draining.Wait()
		child.Wait() // it was killed
	}()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := uint64(1)
	for e, err := range r.Follow(ctx, Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.ID != want {
			t.Fatalf("event %d came, want %d", e.ID, want)
		}
		if want++; want > 30_000 {
			break
		}
	}
	if want <= 30_000 {
		t.Errorf("only %d events came", want-1)
	}
}
