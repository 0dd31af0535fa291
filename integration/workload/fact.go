package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// What a fact can say.
const (
	actionOpened     = "opened"     // a socket can be spoken to
	actionClosed     = "closed"     // it is gone: its last holder closed it
	actionHeld       = "held"       // a child process holds an inherited socket
	actionTerminated = "terminated" // kill-port ended a process by SIGTERM
	actionKilled     = "killed"     // kill-port ended a process by SIGKILL
	actionSummary    = "summary"    // many operations in one line
)

// A fact is something that this process did to one socket or process, as one
// JSON line. Absent fields do not apply.
type fact struct {
	Action string `json:"action"`
	// Time is right before the call that did it, After right after it, UTC.
	// The change became visible between the two.
	Time     time.Time `json:"time"`
	After    time.Time `json:"after"`
	Protocol string    `json:"protocol,omitempty"`
	Address  string    `json:"address,omitempty"`
	Port     uint16    `json:"port,omitempty"`
	// PID is the process, in its own pid namespace, and UID its effective user,
	// left out for a process that kill-port ended.
	PID int  `json:"pid"`
	UID *int `json:"uid,omitempty"`
	// Cookie is the kernel's identity of the socket. With MPTCP it is that of
	// the socket the process sees, not of the TCP socket that a dump shows.
	Cookie uint64 `json:"cookie,omitempty"`
	MPTCP  bool   `json:"mptcp,omitempty"`
	// Count is how many operations a summary stands for, PerSecond their rate.
	Count     int     `json:"count,omitempty"`
	PerSecond float64 `json:"per_second,omitempty"`
}

// A recorder writes facts, one whole line each. It is safe for concurrent use.
type recorder struct {
	mu  sync.Mutex
	out io.Writer
}

func newRecorder(out io.Writer) *recorder { return &recorder{out: out} }

// record completes f with this process and writes it.
func (r *recorder) record(f fact) error {
	f.Time, f.After = f.Time.UTC(), f.After.UTC()
	if f.PID == 0 {
		uid := os.Geteuid()
		f.PID, f.UID = os.Getpid(), &uid
	}
	line, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a fact: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write a fact to standard output: %w", err)
	}
	return nil
}

// summarize records count operations done since start on one address.
func (r *recorder) summarize(protocol string, count int, start time.Time) error {
	after := time.Now()
	return r.record(fact{
		Action: actionSummary, Time: start, After: after, Protocol: protocol,
		Count: count, PerSecond: float64(count) / max(after.Sub(start).Seconds(), 1e-9),
	})
}
