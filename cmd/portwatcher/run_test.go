package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A stop waits for slow consumers of events, and is a failure where one of them has not
// written its last events in time.
func TestStopWaitsForTheLastEvents(t *testing.T) {
	type test struct {
		printing, recording time.Duration
		want                []string // in the error
	}
	for name, test := range map[string]test{
		"in time":         {printing: 5 * time.Second, recording: 6 * time.Second},
		"standard output": {printing: time.Hour, want: []string{"standard output was not read within 8s"}},
		"the journal":     {recording: time.Hour, want: []string{"the journal could not be written within 8s"}},
		"both":            {time.Hour, time.Hour, []string{"standard output was not read", "the journal could not be written"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended, end := context.WithCancel(t.Context())
				defer end()
				takes := func(d time.Duration) *consumer {
					return start(ended, func(ctx context.Context) error {
						<-ctx.Done()
						select {
						case <-time.After(d):
						case <-ended.Done():
						}
						return nil
					})
				}
				err := finish(nil, takes(test.printing), takes(test.recording), writeLimit)
				if (err == nil) != (test.want == nil) {
					t.Fatalf("error %v, want %q in it", err, test.want)
				}
				for _, part := range test.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %v, want %q in it", err, part)
					}
				}
			})
		})
	}
}
