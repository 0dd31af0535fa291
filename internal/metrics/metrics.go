// Package metrics shows Prometheus what portwatcher does and what is open.
//
// Scans are counted as they come; all else, such as the events since the start and
// the open endpoints, is read when Prometheus asks. It keeps no history and serves
// nothing: the caller sends what [Metrics.Write] writes.
//
// Invariants:
//
//   - DO keep the number of series bounded: each label is a closed set, or its
//     metric has a budget. DON'T put a pid or an id into a label, but for
//     container_id of portwatcher_port_info.
//   - DON'T block in ObserveScan: a source calls it.
//   - DO write the metrics with a series for each port by hand: the library takes
//     ten times as long to check each. What has few series is the library's.
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

	"portwatcher/internal/model"
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
	scan      *prometheus.HistogramVec

	state State
	// ports has the metrics of each port for what is not written by hand.
	ports    *prometheus.Registry
	rendered rendered
	leftOut  sync.Once // logs that series are left out
	failure  logOnce
}

// New returns metrics that do not know yet where to read what is true now; see
// [Metrics.Watch].
func New(o Options) *Metrics {
	m := &Metrics{
		log: o.Logger, maxSeries: o.MaxSeries, registry: prometheus.NewRegistry(), ports: prometheus.NewRegistry(),
		scan: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "portwatcher_scan_duration_seconds", Help: "Time that one look at the sockets of one network namespace took.",
			// Classic buckets, and native ones for who asks for them.
			Buckets:                         model.DetectionBounds,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"source"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "portwatcher_build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit, "go_version": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.scan, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Watch names what scrapes read. It is called once, before the first scrape.
func (m *Metrics) Watch(state State) {
	m.state = state
	m.registry.MustRegister(&collector{state})
	m.ports.MustRegister(&portCollector{m})
}

// ObserveScan takes the time of one scan of the sockets of a namespace.
func (m *Metrics) ObserveScan(source model.Source, took time.Duration) {
	if m != nil {
		m.scan.WithLabelValues(string(source)).Observe(took.Seconds())
	}
}

// Negotiate returns the format that a client takes, which is the content type of
// the answer: the text format, OpenMetrics or protobuf.
func Negotiate(header http.Header) expfmt.Format {
	return expfmt.NegotiateAccept(header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
}

// Write writes all metrics. What cannot be collected is left out, and logged once.
func (m *Metrics) Write(into *bytes.Buffer, format expfmt.Format) error {
	gatherers := prometheus.Gatherers{m.registry}
	var byHand []segment
	switch format.FormatType() {
	case expfmt.TypeTextPlain, expfmt.TypeOpenMetrics:
		if m.state != nil {
			byHand = m.rendered.of(m, m.state.View(), format.FormatType() == expfmt.TypeOpenMetrics)
		}
	default:
		gatherers = append(gatherers, m.ports)
	}
	families, err := gatherers.Gather()
	if err != nil {
		m.failure.log(m.log, err)
	}
	encoder := expfmt.NewEncoder(into, format)
	for _, family := range families {
		for len(byHand) > 0 && byHand[0].name < family.GetName() {
			into.Write(byHand[0].text)
			byHand = byHand[1:]
		}
		if err := encoder.Encode(family); err != nil {
			return err
		}
	}
	for _, one := range byHand {
		into.Write(one.text)
	}
	if closer, ok := encoder.(expfmt.Closer); ok {
		return closer.Close() // OpenMetrics has a last line
	}
	return nil
}

// logOnce logs an error when it is another than the last.
type logOnce struct {
	mutex sync.Mutex
	last  string
}

func (l *logOnce) log(to logrus.FieldLogger, err error) {
	text := err.Error()
	l.mutex.Lock()
	known := text == l.last
	l.last = text
	l.mutex.Unlock()
	if known {
		return
	}
	var several prometheus.MultiError
	if errors.As(err, &several) && len(several) > 0 {
		text = several[0].Error()
	}
	to.Warnf("Metrics are left out: %s", strings.ReplaceAll(text, "\n", " "))
}
