package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/config"
)

// reload loads the settings again at each signal, and after their file changed, until
// ctx ends. It applies those that can change without a restart. Invalid settings, and those that
// apply refuses, are logged, and the old ones stay in effect.
func reload(ctx context.Context, loader *config.Loader, s *config.Settings, log logrus.FieldLogger, hangup <-chan os.Signal, apply func(*config.Settings) error) error {
	poll := time.NewTimer(loader.FileInterval())
	defer poll.Stop()
	// Editors write a file in several steps: it is read after an interval without a change.
	for changing := false; ; {
		cause := "SIGHUP"
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		case <-poll.C:
			poll.Reset(loader.FileInterval())
			changed := loader.FileChanged()
			if changed || !changing {
				changing = changed
				continue
			}
			cause = "the file changed"
		}
		changing = false
		log.Debugf("The settings are loaded again: %s.", cause)
		next, err := loader.Load()
		if err == nil {
			if fixed := next.Restart(s); len(fixed) > 0 {
				log.Warnf("These settings have changed, and take effect at the next start: %s.", strings.Join(fixed, ", "))
			}
			err = apply(next)
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				log.Error("Settings: " + strings.TrimRight(line, "\n"))
			}
			log.Error("The settings were not reloaded; the old ones stay.")
			continue
		}
		log.Info("The settings were reloaded.")
		s = next
	}
}
