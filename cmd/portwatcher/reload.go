package main

import (
	"context"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/config"
)

// reload loads the settings again at each signal, and when their file has
// changed, until ctx ends, and applies what can change without a restart. Where
// they are wrong the old ones stay.
func reload(ctx context.Context, loader *config.Loader, s *config.Settings, log logrus.FieldLogger, hangup <-chan os.Signal, apply func(*config.Settings)) error {
	var changed <-chan struct{}
	if s.ConfigFile != "" {
		var err error
		if changed, err = s.Watch(ctx, log); err != nil {
			log.WithError(err).Warn("Changes of the configuration file are not noticed; send SIGHUP to have it read again.")
		}
	}
	for {
		select {
		case <-ctx.Done():
			if changed != nil {
				for range changed { // until nothing of it runs any more
				}
			}
			return nil
		case <-hangup:
		case _, watching := <-changed:
			if !watching {
				changed = nil
				continue
			}
		}
		next, err := loader.Load()
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				log.Error("Settings: " + strings.TrimSpace(line))
			}
			log.Error("The settings were not reloaded; the old ones stay.")
			continue
		}
		if fixed := next.Restart(s); len(fixed) > 0 {
			log.Warnf("These settings have changed, and take effect at the next start: %s.", strings.Join(fixed, ", "))
		}
		apply(next)
		log.Info("The settings were reloaded.")
		s = next
	}
}
