package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"portwatcher/internal/model"
)

// stopPatience bounds the wait for the end after SIGTERM.
const stopPatience = 10 * time.Second

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

// observe hands the lines that are read from now on to o.
func (w *watcher) observe(o observer) { w.observer.Store(&o) }

// startWatcher starts portwatcher with the source ("ebpf" or "netlink") and
// returns when its list is complete. The caller stops it.
func startWatcher(ctx context.Context, binary, source string, f *fleet) (*watcher, error) {
	w, first, err := launchWatcher(binary, f.endpoints(), "--source", source, "--monitor-containers", "label:"+f.label())
	if err != nil {
		return nil, err
	}
	deadline := time.NewTimer(completePatience)
	defer deadline.Stop()
	select {
	case lines := <-first:
		if err = checkComplete(lines, f.endpoints()); err == nil {
			return w, nil
		}
	case <-deadline.C:
		err = fmt.Errorf("after %v there are %d of %d opened events", completePatience, w.lines.Load(), f.endpoints())
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
	// The bench, not the terminal, tells it to stop.
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

// follow reads lines until standard output ends, and hands over the opened
// events that make the list complete. Nothing is decoded meanwhile: that would
// take its share of the processor.
func (w *watcher) follow(output io.Reader, endpoints int, begin time.Time, first chan<- [][]byte) {
	var opened [][]byte
	scanner := bufio.NewScanner(output)
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

// checkComplete says whether these events tell of so many endpoints.
func checkComplete(lines [][]byte, endpoints int) error {
	known := map[model.Endpoint]bool{}
	for _, line := range lines {
		var event model.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("event %q: %w", line, err)
		}
		if event.Container == nil {
			return fmt.Errorf("event %q names no container", line)
		}
		known[model.Endpoint{
			Container: event.Container.ID, Protocol: event.Protocol, Address: event.Address, Port: event.Port,
		}] = true
	}
	if len(known) != endpoints {
		return fmt.Errorf("%d opened events tell of %d endpoints", endpoints, len(known))
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
