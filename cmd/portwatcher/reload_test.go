package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"portwatcher/internal/config"
	"portwatcher/internal/filewatch"
)

// The settings are loaded again after their file has not changed for an interval, and
// at each signal.
func TestReload(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.yaml")
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("close_grace: 1s\n")
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Register(flags, config.Names()...)
	if err := flags.Parse([]string{"--config", name}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		loader := config.NewLoader(flags, nil)
		settings, err := loader.Load()
		if err != nil {
			t.Fatal(err)
		}
		log := logrus.New()
		log.SetOutput(io.Discard)
		hangup := make(chan os.Signal, 1)
		applied := make(chan time.Duration, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- reload(ctx, loader, settings, log, hangup, func(s *config.Settings) error {
				if s.CloseGrace == 4*time.Second {
					return errors.New("refused")
				}
				applied <- s.CloseGrace
				return nil
			})
		}()
		expect := func(what string, want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			var got []time.Duration
			for len(applied) > 0 {
				got = append(got, <-applied)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: applied %v, want %v", what, got, want)
			}
		}
		time.Sleep(filewatch.Interval / 2)
		put("") // an editor truncates the file, and then writes it
		time.Sleep(filewatch.Interval)
		put("close_grace: 2s\n")
		time.Sleep(filewatch.Interval)
		expect("changing")
		time.Sleep(filewatch.Interval)
		expect("changed", 2*time.Second)
		time.Sleep(5 * filewatch.Interval)
		expect("unchanged")
		put("close_grace: x\n")
		time.Sleep(5 * filewatch.Interval)
		expect("invalid")
		put("close_grace: 3s\n")
		hangup <- os.Interrupt
		expect("signal", 3*time.Second)
		time.Sleep(5 * filewatch.Interval)
		expect("after the signal")
		put("close_grace: 4s\n")
		time.Sleep(5 * filewatch.Interval)
		expect("refused")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
