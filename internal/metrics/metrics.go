// Package metrics collects Prometheus metrics of portwatcher and of the open endpoints.
//
// Scans are counted as they happen; all else, such as the events since the start and the open
// endpoints, is read from [Sources] at each scrape. The package keeps no history and serves
// nothing: the caller sends what [Metrics.Write] writes.
//
// Invariants:
//
//   - DO keep the number of series bounded: each label is a closed set, or its metric has a
//     budget. DON'T put a pid or an id into a label, except container_id of
//     portwatcher_port_info.
//   - DON'T block in ObserveScan: a source calls it.
//   - DO build the metrics with a series for each port without the registry, whose checks take
//     ten times as long, and encode them once for each version of the view.
package metrics

import (
	"bytes"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert"
	"portwatcher/internal/model"
)

// Options are the arguments of [New].
type Options struct {
	// MaxSeries bounds the series of each metric that grows with the number of ports; at least 1.
	MaxSeries int
	// Version and Commit identify the build.
	Version, Commit string
	Logger          logrus.FieldLogger
}

// Sources are read at each scrape. The functions are safe for concurrent use, and return within
// milliseconds.
type Sources struct {
	View func() *model.View
	// Published returns the published ports of the monitored containers.
	Published func(*model.View) []Published
	// Ready returns nil while everything is watched.
	Ready   func() error
	Journal func() Journal
	// Alerts returns the state of alerts. It may be nil: none.
	Alerts func() *alert.Status
	// Streams returns how many readers of the event stream there are, and how many were
	// disconnected since the start because they were too slow. It may be nil: none.
	Streams func() (open int, cutOff uint64)
}

// Published is a published port of a container.
type Published struct {
	Container string // its name
	Protocol  model.Protocol
	Port      uint16
	// Listening means that something that others can reach listens there.
	Listening bool
}

// Journal is the state of the record of events.
type Journal struct {
	Writable bool
	// LagSeconds is the age of the oldest event that is not recorded yet.
	LagSeconds float64
	SizeBytes  int64
	// Written is how many events were recorded since the start, and Passed how many retention
	// deleted before the consumer of a cursor had read them.
	Written, Passed uint64
}

// Metrics has a registry of its own. Its methods are safe for concurrent use, and a nil
// *Metrics counts nothing.
type Metrics struct {
	log      logrus.FieldLogger
	registry *prometheus.Registry
	scan     *prometheus.HistogramVec
	ports    *ports // nil until Watch

	mutex       sync.Mutex
	lastFailure string // that was logged
}

// New returns metrics without sources; see [Metrics.Watch].
func New(o Options) *Metrics {
	m := &Metrics{
		log: o.Logger, registry: prometheus.NewRegistry(),
		ports: &ports{log: o.Logger, maxSeries: o.MaxSeries},
		scan: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "portwatcher_scan_duration_seconds", Help: "Duration of one scan of the sockets of one network namespace.",
			// Classic buckets, and native ones for clients that support them.
			Buckets:                         model.DetectionBounds,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"source"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "portwatcher_build_info",
		Help:        "Always 1; the labels identify the build.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit, "go_version": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.scan, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Watch sets the sources. It is called once, before the first scrape.
func (m *Metrics) Watch(s Sources) {
	m.ports.sources = s
	m.registry.MustRegister(&collector{s})
}

// ObserveScan receives the duration of each scan of the sockets of a namespace.
func (m *Metrics) ObserveScan(source model.Source, took time.Duration) {
	if m != nil {
		m.scan.WithLabelValues(string(source)).Observe(took.Seconds())
	}
}

// Negotiate returns the format that a client accepts, which is the content type of the answer:
// the text format, OpenMetrics or protobuf.
func Negotiate(header http.Header) expfmt.Format {
	return expfmt.NegotiateAccept(header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
}

// Write writes all metrics. It leaves out what cannot be collected, and logs that once.
func (m *Metrics) Write(into *bytes.Buffer, format expfmt.Format) error {
	encoded, err := m.ports.encoded(format)
	if err != nil {
		return err
	}
	families, err := m.registry.Gather()
	if err != nil {
		m.logFailure(err)
	}
	encoder := expfmt.NewEncoder(into, format)
	for _, family := range families {
		for len(encoded) > 0 && encoded[0].name < family.GetName() {
			into.Write(encoded[0].text)
			encoded = encoded[1:]
		}
		if err := encoder.Encode(family); err != nil {
			return err
		}
	}
	for _, family := range encoded {
		into.Write(family.text)
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		return closer.Close() // OpenMetrics has a last line
	}
	return nil
}

// logFailure logs an error, unless it was the last one.
func (m *Metrics) logFailure(err error) {
	text := err.Error()
	m.mutex.Lock()
	logged := text == m.lastFailure
	m.lastFailure = text
	m.mutex.Unlock()
	if logged {
		return
	}
	var several prometheus.MultiError
	if errors.As(err, &several) && len(several) > 0 {
		text = several[0].Error()
	}
	m.log.Warnf("Metrics are left out: %s", strings.ReplaceAll(text, "\n", " "))
}
