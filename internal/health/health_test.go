package health

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"portwatcher/internal/kerneltest"
)

func TestHealth(t *testing.T) {
	for _, address := range []string{fmt.Sprintf("@portwatcher-test-%d", os.Getpid()), filepath.Join(t.TempDir(), "health.sock")} {
		t.Run(address, func(t *testing.T) {
			if err := Check(t.Context(), address); err == nil || !strings.Contains(err.Error(), "no running instance") {
				t.Errorf("without an instance: %v", err)
			}
			var state atomic.Pointer[error]
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- Serve(ctx, address, func() error {
					if err := state.Load(); err != nil {
						return *err
					}
					return nil
				})
			}()
			kerneltest.Eventually(t, "the instance is ready", func() bool { return Check(t.Context(), address) == nil })
			failure := errors.New("two\nlines")
			state.Store(&failure)
			if err := Check(t.Context(), address); err == nil || err.Error() != "not ready: two; lines" {
				t.Errorf("error %v, want the reason in one line", err)
			}
			if err := Serve(t.Context(), address, func() error { return nil }); err == nil || !strings.Contains(err.Error(), address) {
				t.Errorf("a second instance on the socket: %v, want an error that names it", err)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("stopping: %v", err)
			}
		})
	}
}
