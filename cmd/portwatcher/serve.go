package main

import (
	"os"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/server"
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
func newServer(s *config.Settings, log logrus.FieldLogger, c *capture.Capture, record *journal.Journal, m *metrics.Metrics) (*server.Server, error) {
	if s.Listen == "" {
		return nil, nil
	}
	web, err := server.New(server.Options{
		Listen: s.Listen, TokenFile: s.TokenFile, TLSCert: s.TLSCert, TLSKey: s.TLSKey, AllowedHosts: s.AllowedHosts,
		Namespace: ownNamespace(s.ProcRoot, log),
		Capture:   c, History: server.FromJournal(record), Metrics: m, Page: page.Handler(), Logger: log, Version: version.Version,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return web, web.Listen()
}

// ownNamespace returns the network namespace of this process, zero where that is
// known to be the host's.
func ownNamespace(procRoot string, log logrus.FieldLogger) model.Namespace {
	own, err := netns.Identify("/proc", os.Getpid())
	if err != nil {
		log.WithError(err).Debug("The own network namespace is not known.")
		return model.Namespace{}
	}
	host, err := procfs.HostNamespace(procRoot)
	if err != nil {
		log.WithError(err).Debug("The host's network namespace is not known by this process.")
	}
	if host == own {
		return model.Namespace{}
	}
	return own
}
