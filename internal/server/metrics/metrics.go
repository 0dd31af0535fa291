// Package metrics counts what happens and shows it to Prometheus.
//
// Events and durations are counted as they come; what is true at one moment,
// such as the open endpoints, is read when Prometheus asks. It keeps no history
// and writes nothing.
//
// Invariants:
//
//   - DO keep the number of series bounded: each label is a closed set, or its
//     metric has a budget. DON'T put a pid or an id into a label, but for
//     container_id of portwatcher_port_info.
//   - DON'T block in Event and Observe…: the capture calls them.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/port"
)

// Options are the settings of New.
type Options struct {
	// MaxSeries bounds the series of each metric that grows with the number of
	// ports; at least 1.
	MaxSeries int
	// Version and Commit say which build this is.
	Version, Commit string
	Logger          logrus.FieldLogger
}

// Metrics is a registry of its own. Its methods are safe for concurrent use,
// and a nil *Metrics counts nothing.
type Metrics struct {
	log       logrus.FieldLogger
	maxSeries int
	registry  *prometheus.Registry

	entered   *prometheus.CounterVec
	events    *prometheus.CounterVec
	detection *prometheus.HistogramVec
	scan      *prometheus.HistogramVec
}

// latencyBuckets go from what eBPF takes to what a slow scan takes, in seconds.
var latencyBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New returns metrics that do not know yet where to read what is true now; see
// [Metrics.Watch].
func New(o Options) *Metrics {
	m := &Metrics{
		log: o.Logger, maxSeries: o.MaxSeries, registry: prometheus.NewRegistry(),
		entered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portwatcher_ports_total",
			Help: "Endpoints that began to listen, or were closed, since the start.",
		}, []string{"state"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portwatcher_events_total",
			Help: "Events since the start, by type and by what told of them.",
		}, []string{"type", "source"}),
		detection: histogram("portwatcher_detection_latency_seconds",
			"Time from a change in the kernel to its event, where the source knows the exact moment of the change."),
		scan: histogram("portwatcher_scan_duration_seconds",
			"Time that one look at the sockets of one network namespace took."),
	}
	m.entered.WithLabelValues(stateListening)
	m.entered.WithLabelValues(stateClosed)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "portwatcher_build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit, "go_version": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.entered, m.events, m.detection, m.scan, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const (
	stateListening = "listening"
	stateClosed    = "closed"
)

// histogram has classic buckets, and native ones for who asks for them.
func histogram(name, help string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: latencyBuckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"source"})
}

// Event counts an event.
func (m *Metrics) Event(e *port.Event) {
	if m == nil {
		return
	}
	m.events.WithLabelValues(string(e.Type), string(e.Source)).Inc()
	switch e.Type {
	case port.Opened:
		m.entered.WithLabelValues(stateListening).Inc()
	case port.Closed:
		m.entered.WithLabelValues(stateClosed).Inc()
	}
}

// ObserveDetection takes the time from a change in the kernel to its event.
func (m *Metrics) ObserveDetection(source port.Source, took time.Duration) {
	if m != nil {
		m.detection.WithLabelValues(string(source)).Observe(took.Seconds())
	}
}

// ObserveScan takes the time of one look at the sockets of a namespace.
func (m *Metrics) ObserveScan(source port.Source, took time.Duration) {
	if m != nil {
		m.scan.WithLabelValues(string(source)).Observe(took.Seconds())
	}
}

// Handler serves the metrics in the text format, OpenMetrics or protobuf. What
// cannot be collected is left out and logged.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:          errorLog{m.log},
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})
}

type errorLog struct{ log logrus.FieldLogger }

func (l errorLog) Println(what ...any) { l.log.Warnln(append([]any{"Metrics:"}, what...)...) }
