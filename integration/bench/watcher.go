package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"portwatcher/internal/testutil/truth"
)

const (
	// completePatience bounds the wait for the complete list.
	completePatience = time.Minute
	// stopPatience bounds the wait for the end after SIGTERM.
	stopPatience = 10 * time.Second
	// quietTime without a new line is taken for the end of what is reported: netlink scans
	// each 500 ms. accountPatience bounds the wait for it.
	quietTime       = 2 * time.Second
	accountPatience = time.Minute
)

// A watcher is a running `portwatcher run` whose list is complete.
type watcher struct {
	process  *exec.Cmd
	folder   string        // of its journal
	complete time.Duration // from the start to the complete list
	lines    atomic.Int64  // read from its standard output
	log      bytes.Buffer  // its standard error; complete once it has ended
	observer atomic.Pointer[observer]

	read chan error // what ended the reading of its standard output
}

// An observer is called with each line and the moment at which it was read, by
// one goroutine. The line is valid during the call only.
type observer func(line []byte, at time.Time)

// observe passes the lines that are read from now on to o.
func (w *watcher) observe(o observer) { w.observer.Store(&o) }

// watch starts portwatcher with a source and more arguments, and returns when its list is
// complete. It serves only where an argument is --listen. The caller stops it.
func (s *stage) watch(ctx context.Context, source string, more ...string) (*watcher, error) {
	w, first, err := launchWatcher(s.portwatcher, s.endpoints(), slices.Concat(
		[]string{"--source", source, "--monitor-containers", "label:" + s.label(), "--listen", ""}, more)...)
	if err != nil {
		return nil, err
	}
	deadline := time.NewTimer(completePatience)
	defer deadline.Stop()
	select {
	case lines := <-first:
		if err = checkComplete(lines, s.endpoints()); err == nil {
			return w, nil
		}
	case <-deadline.C:
		err = fmt.Errorf("after %v there are %d of %d opened events", completePatience, w.lines.Load(), s.endpoints())
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-w.read:
		w.read <- err
		err = errors.Join(errors.New("portwatcher ended before its list was complete"), err)
	}
	_, stopErr := w.stop()
	if ctx.Err() == nil {
		err = fmt.Errorf("%w; its log:\n%s", err, w.log.String())
	}
	return nil, errors.Join(err, stopErr)
}

// launchWatcher starts portwatcher. First receives the opened events of so many
// endpoints once they are there. The caller stops it.
func launchWatcher(binary string, endpoints int, arguments ...string) (w *watcher, first <-chan [][]byte, err error) {
	folder, err := os.MkdirTemp("", "portwatcher-bench-")
	if err != nil {
		return nil, nil, err
	}
	w = &watcher{read: make(chan error, 1), folder: folder}
	w.process = exec.Command(binary, append([]string{"run", "--format", "json", "--health-socket", "", "--state", folder}, arguments...)...)
	// The terminal does not interrupt it.
	w.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.process.Stderr = &w.log
	output, err := w.process.StdoutPipe()
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(folder))
	}
	opened := make(chan [][]byte, 1)
	begin := time.Now()
	if err := w.process.Start(); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(folder))
	}
	go w.follow(output, endpoints, begin, opened)
	return w, opened, nil
}

// follow reads lines until standard output ends, and sends the opened events that make the
// list complete. It decodes nothing, which would take processor time from portwatcher.
func (w *watcher) follow(output io.Reader, endpoints int, begin time.Time, first chan<- [][]byte) {
	var opened [][]byte
	scanner := bufio.NewScanner(output)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		w.lines.Add(1)
		if o := w.observer.Load(); o != nil {
			(*o)(scanner.Bytes(), time.Now())
		}
		if len(opened) == endpoints || !bytes.Contains(scanner.Bytes(), []byte(`"type":"opened"`)) {
			continue
		}
		if opened = append(opened, bytes.Clone(scanner.Bytes())); len(opened) == endpoints {
			w.complete = time.Since(begin)
			first <- opened
		}
	}
	w.read <- scanner.Err()
}

// checkComplete returns an error unless these events are of so many endpoints.
func checkComplete(lines [][]byte, endpoints int) error {
	ledger := truth.NewLedger()
	for _, line := range lines {
		ledger.SkipsIDs = true // events of other types are left out
		ledger.Take(string(line))
	}
	if len(ledger.Open) != endpoints || len(ledger.Problems) > 0 {
		return fmt.Errorf("%d opened events are of %d endpoints: %v", len(lines), len(ledger.Open), ledger.Problems)
	}
	return nil
}

// stop ends portwatcher by SIGTERM and returns how long that took.
func (w *watcher) stop() (time.Duration, error) {
	begin := time.Now()
	// It may have ended already: then there is nothing to signal.
	if err := w.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return 0, fmt.Errorf("stop portwatcher: %w", err)
	}
	kill := time.AfterFunc(stopPatience, func() { _ = w.process.Process.Kill() })
	readErr := <-w.read
	err := w.process.Wait()
	elapsed := time.Since(begin)
	kill.Stop()
	err = errors.Join(err, os.RemoveAll(w.folder))
	if err == nil && readErr == nil {
		return elapsed, nil
	}
	return 0, fmt.Errorf("portwatcher's end: %w; its log:\n%s", errors.Join(readErr, err), w.log.String())
}

// An account is a ledger that grows while it is read. It is safe for concurrent use.
type account struct {
	mutex  sync.Mutex
	ledger *truth.Ledger
}

// account accounts for the lines that are read from now on.
func (w *watcher) account() *account {
	a := &account{ledger: truth.NewLedger()}
	w.observe(func(line []byte, _ time.Time) {
		a.mutex.Lock()
		defer a.mutex.Unlock()
		a.ledger.Take(string(line))
	})
	return a
}

// of returns the account of a container as it is now.
func (a *account) of(container string) truth.Account {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return *a.ledger.Account(container)
}

// judge compares some containers, of which all is closed in the end.
func (a *account) judge(happened map[string]truth.Count, source string) *truth.Judgement {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.ledger.Judge(happened, truth.PrecisionOf(source))
}

// await waits until everything is accounted for, or until no line has come for quietTime.
func (a *account) await(ctx context.Context, w *watcher, happened map[string]truth.Count, source string) error {
	lines, changed := w.lines.Load(), time.Now()
	return untilEach(ctx, pollTime, accountPatience, func() error {
		j := a.judge(happened, source)
		if now := w.lines.Load(); now != lines {
			lines, changed = now, time.Now()
		}
		if j.Unaccounted() > 0 && time.Since(changed) < quietTime {
			return fmt.Errorf("portwatcher reports, and %d openings and closings are not accounted for", j.Unaccounted())
		}
		return nil
	})
}
