package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// connectionsPatience bounds the wait for the first connections.
const connectionsPatience = 10 * time.Second

// connectionsPort is that of the connections program.
const connectionsPort = "22000"

// A connectionSample is a line of the connections program, so far.
type connectionSample struct {
	Time        time.Time `json:"time"`
	Connections int64     `json:"connections"`
	Server      int64     `json:"server"` // CPU nanoseconds
	Client      int64     `json:"client"`
}

// connectionLoad is the connections program at work in a container.
type connectionLoad struct {
	stage   *stage
	process *exec.Cmd
	read    chan error
	mutex   sync.Mutex
	samples []connectionSample
}

// startConnections returns when connections are made. The caller stops it.
func startConnections(ctx context.Context, st *stage, arguments ...string) (*connectionLoad, error) {
	l := &connectionLoad{stage: st, read: make(chan error, 1)}
	l.process = exec.Command("docker", append([]string{"exec", st.ids[0], "/connections"}, arguments...)...)
	l.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	l.process.Stderr = os.Stderr
	output, err := l.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.process.Start(); err != nil {
		return nil, err
	}
	go func() { l.read <- l.follow(bufio.NewScanner(output)) }()
	for deadline := time.Now().Add(connectionsPatience); ; {
		if l.made() > 0 {
			return l, nil
		}
		err := wait(ctx, 10*time.Millisecond)
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("no connection was made in %v", connectionsPatience)
		}
		if err != nil {
			_, stopErr := l.stop(ctx)
			return nil, errors.Join(err, stopErr)
		}
	}
}

func (l *connectionLoad) follow(lines *bufio.Scanner) error {
	for lines.Scan() {
		var s connectionSample
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("line %q of the connections: %w", lines.Bytes(), err)
		}
		l.mutex.Lock()
		l.samples = append(l.samples, s)
		l.mutex.Unlock()
	}
	return lines.Err()
}

func (l *connectionLoad) made() int64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.samples) == 0 {
		return 0
	}
	return l.samples[len(l.samples)-1].Connections
}

// stop ends the program and returns all samples. Where it cannot be ended, as
// after an interrupt, the removal of the container does it.
func (l *connectionLoad) stop(ctx context.Context) ([]connectionSample, error) {
	_, err := l.stage.exec(ctx, "kill-port", "--port", connectionsPort)
	if err != nil {
		_ = l.process.Process.Kill() // it may have ended already
	}
	err = errors.Join(err, <-l.read)
	_ = l.process.Wait() // the status of a program that was ended says nothing
	return l.samples, err
}

// A connectionSpan is what was done in a span of time.
type connectionSpan struct {
	connectionSample
	span time.Duration
}

// between returns what was done between the first and the last sample of a
// span of time.
func between(samples []connectionSample, begin, end time.Time) (connectionSpan, error) {
	var first, last connectionSample
	for _, s := range samples {
		if s.Time.Before(begin) || s.Time.After(end) {
			continue
		}
		if last = s; first.Time.IsZero() {
			first = s
		}
	}
	d := connectionSpan{
		connectionSample{Connections: last.Connections - first.Connections, Server: last.Server - first.Server, Client: last.Client - first.Client},
		last.Time.Sub(first.Time),
	}
	if d.Connections <= 0 || d.span <= 0 {
		return d, fmt.Errorf("no connections between %v and %v", begin, end)
	}
	return d, nil
}
