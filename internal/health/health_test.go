package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/testutil/kernel"
)

// serve runs Serve, and ends it with the test or by the function it returns.
func serve(t *testing.T, address string, state func() error) (stop func(), lines *test.Hook) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	lines = test.NewLocal(log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s := newServer(address, state, log)
	s.check = 10 * time.Millisecond
	go func() {
		defer close(ended)
		s.serve(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop, lines
}

func isReady() error { return nil }

func answers(t *testing.T, address string) {
	t.Helper()
	kernel.Eventually(t, "the instance at "+address+" is ready", func() bool { return Check(t.Context(), address) == nil })
}

// addresses are of both kinds.
func addresses(t *testing.T) []string {
	return []string{fmt.Sprintf("@portwatcher-test-%d-%s", os.Getpid(), t.Name()), filepath.Join(t.TempDir(), "health.sock")}
}

func TestHealth(t *testing.T) {
	for _, address := range addresses(t) {
		t.Run(address, func(t *testing.T) {
			if err := Check(t.Context(), address); err == nil || !strings.Contains(err.Error(), "no running instance") {
				t.Errorf("without an instance: %v", err)
			}
			var state atomic.Pointer[error]
			stop, lines := serve(t, address, func() error {
				if err := state.Load(); err != nil {
					return *err
				}
				return nil
			})
			answers(t, address)
			failure := errors.New("two\nlines")
			state.Store(&failure)
			if err := Check(t.Context(), address); err == nil || err.Error() != "not ready: two; lines" {
				t.Errorf("error %v, want the reason in one line", err)
			}
			stop()
			if err := Check(t.Context(), address); err == nil || !strings.Contains(err.Error(), "no running instance") {
				t.Errorf("after the end: %v", err)
			}
			if entries := lines.AllEntries(); len(entries) > 0 {
				t.Errorf("the log has %d lines, the first %q; want none", len(entries), entries[0].Message)
			}
		})
	}
}

// A second instance takes the socket when the first has ended, and reports once
// that it cannot before.
func TestSocketOfAnotherInstance(t *testing.T) {
	for _, address := range addresses(t) {
		t.Run(address, func(t *testing.T) {
			stop, _ := serve(t, address, func() error { return errors.New("the first") })
			kernel.Eventually(t, "the first answers", func() bool {
				err := Check(t.Context(), address)
				return err != nil && strings.Contains(err.Error(), "the first")
			})
			_, lines := serve(t, address, isReady)
			kernel.Eventually(t, "the second reports that the socket is in use", func() bool {
				entries := lines.AllEntries()
				return len(entries) == 1 && strings.Contains(entries[0].Message, address)
			})
			stop()
			answers(t, address)
			kernel.Eventually(t, "the end of the trouble is reported", func() bool { return len(lines.AllEntries()) == 2 })
		})
	}
}

// An instance that was killed leaves the file of its socket behind.
func TestSocketOfKilledInstance(t *testing.T) {
	address := filepath.Join(t.TempDir(), "health.sock")
	listener, err := listen(address)
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, address, isReady)
	answers(t, address)
}

// What is at the address and is no socket stays.
func TestSocketIsAnotherFile(t *testing.T) {
	address := filepath.Join(t.TempDir(), "health.sock")
	if err := os.WriteFile(address, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop, lines := serve(t, address, isReady)
	kernel.Eventually(t, "the address is reported as in use", func() bool { return len(lines.AllEntries()) == 1 })
	stop()
	if content, err := os.ReadFile(address); string(content) != "precious" {
		t.Errorf("the file holds %q, error %v", content, err)
	}
}

// A file that somebody removes is made anew.
func TestSocketFileIsRemoved(t *testing.T) {
	address := filepath.Join(t.TempDir(), "health.sock")
	_, lines := serve(t, address, isReady)
	answers(t, address)
	if err := os.Remove(address); err != nil {
		t.Fatal(err)
	}
	answers(t, address)
	kernel.Eventually(t, "the log reports it", func() bool {
		entries := lines.AllEntries()
		return len(entries) > 0 && strings.Contains(entries[0].Message, "removed")
	})
}
