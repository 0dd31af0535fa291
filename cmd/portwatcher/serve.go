package main

import (
	"github.com/sirupsen/logrus"

	"portwatcher/internal/config"
	"portwatcher/internal/controller"
	"portwatcher/internal/journal"
	"portwatcher/internal/server"
	"portwatcher/internal/server/metrics"
	"portwatcher/internal/server/page"
	"portwatcher/internal/version"
)

func newMetrics(s *config.Settings, log logrus.FieldLogger) *metrics.Metrics {
	return metrics.New(metrics.Options{
		MaxSeries: s.MetricsMaxSeries, Version: version.Version, Commit: version.Commit, Logger: log,
	})
}

// newServer prepares what is served and takes the address, so that a start with
// an address that is in use ends at once. It returns nil where nothing is
// served.
func newServer(s *config.Settings, log logrus.FieldLogger, c *controller.Controller, record *journal.Journal, m *metrics.Metrics) (*server.Server, error) {
	if s.Listen == "" {
		return nil, nil
	}
	web, err := server.New(server.Options{
		Listen: s.Listen, TokenFile: s.TokenFile, TLSCert: s.TLSCert, TLSKey: s.TLSKey, AllowedHosts: s.AllowedHosts,
		Capture: c, History: server.FromJournal(record), Metrics: m, Page: page.Handler(), Logger: log, Version: version.Version,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return web, web.Listen()
}
