package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// A recorder writes facts, one whole line each. It is safe for concurrent use.
type recorder struct {
	mu  sync.Mutex
	out io.Writer
}

func newRecorder(out io.Writer) *recorder { return &recorder{out: out} }

// record completes f with this process and writes it.
func (r *recorder) record(f truth.Fact) error {
	f.Time, f.After = f.Time.UTC(), f.After.UTC()
	if f.PID == 0 {
		f.PID, f.UID = os.Getpid(), new(uint32(os.Geteuid()))
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
func (r *recorder) summarize(protocol model.Protocol, count int, start time.Time) error {
	after := time.Now()
	return r.record(truth.Fact{
		Action: truth.Summary, Time: start, After: after, Protocol: protocol,
		Count: uint64(count), PerSecond: float64(count) / max(after.Sub(start).Seconds(), 1e-9),
	})
}
