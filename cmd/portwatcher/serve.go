package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"portwatcher/internal/alert"
	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/engine"
	"portwatcher/internal/explain"
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

// newServer prepares the HTTP server and opens its address, so that a start with an address that
// is in use fails at once. It returns nil where nothing is served. It also connects the metrics
// with what they read.
func newServer(s *config.Settings, log logrus.FieldLogger, docker *engine.Engine, c *capture.Capture, record *journal.Journal, m *metrics.Metrics, alerts *alert.Alerts) (*server.Server, error) {
	sources := metrics.Sources{
		View: c.View, Published: server.PublishedPorts,
		Ready: func() error { return errors.Join(c.Ready(), record.Err()) },
		Journal: func() metrics.Journal {
			stats := record.Stats()
			return metrics.Journal{
				Writable: record.Err() == nil, LagSeconds: stats.Lag.Seconds(), SizeBytes: stats.Size, Written: stats.Written, Passed: stats.Passed,
			}
		},
		Alerts: alerts.Status,
	}
	if s.Listen == "" {
		m.Watch(sources)
		return nil, nil
	}
	web, err := server.New(server.Options{
		Listen: s.Listen, TokenFile: s.TokenFile, TLSCert: s.TLSCert, TLSKey: s.TLSKey, AllowedHosts: s.AllowedHosts,
		Namespace: ownNamespace(s.ProcRoot, log),
		Capture:   c, History: server.FromJournal(record), Metrics: m, Page: page.Handler(), Logger: log, Version: version.Version,
		Explain: explanations(s, log, docker, record), Alerts: server.FromAlerts(alerts, record),
	})
	if err != nil {
		return nil, usageError{err}
	}
	sources.Streams = web.Streams
	m.Watch(sources)
	return web, web.Listen()
}

// Bounds on the explanations for the API, each of which scans and connects.
const (
	explainEvery = time.Second
	explainBurst = 5
)

// explanations answers questions of the API; nil where --explain is off.
func explanations(s *config.Settings, log logrus.FieldLogger, docker *engine.Engine, record *journal.Journal) server.Explain {
	if s.Explain == "off" {
		return nil
	}
	limit := rate.NewLimiter(rate.Every(explainEvery), explainBurst)
	return func(ctx context.Context, target, from string) (any, error) {
		if !limit.Allow() {
			return nil, fmt.Errorf("%w: allowed are one a second, and %d at once", server.ErrTooMany, explainBurst)
		}
		question, err := parseQuestion(target, from)
		if err == nil {
			var answer *explain.Explanation
			if answer, err = explained(ctx, question, explainSources(s, log, docker, record.Events)); err == nil {
				return answer, nil
			}
		}
		if _, wrong := errors.AsType[usageError](err); !wrong {
			return nil, err
		}
		if _, flag := errors.AsType[*config.Error](err); flag {
			return nil, &server.InputError{Parameter: "from", Value: from, Err: err}
		}
		return nil, &server.InputError{Parameter: "target", Value: target, Err: err}
	}
}

// ownNamespace returns the network namespace of this process; zero where it is not known, or is
// the host's.
func ownNamespace(procRoot string, log logrus.FieldLogger) model.Namespace {
	own, err := netns.Identify("/proc", os.Getpid())
	if err != nil {
		log.WithError(err).Debug("The network namespace of this process cannot be identified.")
		return model.Namespace{}
	}
	host, err := procfs.HostNamespace(procRoot)
	if err != nil {
		log.WithError(err).Debug("The network namespace of the host cannot be identified.")
	}
	if host == own {
		return model.Namespace{}
	}
	return own
}
