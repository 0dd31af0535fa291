package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"portwatcher/internal/model"
)

// collector reads the metrics with few series at each scrape.
type collector struct{ sources Sources }

var descriptions []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("portwatcher_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

var (
	events    = describe("events_total", "Events since the start, by type and by the source that observed them.", "type", "source")
	entered   = describe("ports_total", "Ports that began to listen, or were closed, since the start: those of events and those counted in bursts.", "state")
	detection = describe("detection_latency_seconds",
		"Time from a change in the kernel to its event, where the source has the exact moment of the change.", "source")
	pipeline = describe("pipeline_total",
		"Openings and closings at a stage of the pipeline since the start: those that came in, and what became of them.", "stage", "what")
	held = describe("pipeline_held", "Openings and closings that are in a stage of the pipeline now.", "stage")

	ready       = describe("ready", "Whether everything is watched (1) or not (0).")
	watchers    = describe("watchers", "Network namespaces that are watched.")
	stale       = describe("stale_watchers", "Watched network namespaces whose last scan failed.")
	monitored   = describe("monitored_containers", "Containers that are monitored.")
	gaps        = describe("gaps_total", "Gap events since the start.")
	overruns    = describe("overruns_total", "How often the kernel dropped messages that were not read in time, since the start.")
	lostEvents  = describe("lost_events_total", "Events that no queue had room for, since the start.")
	connected   = describe("engine_connected", "Whether the Docker Engine is connected (1) or not (0).")
	reconnects  = describe("engine_reconnects_total", "How often the connection to the Docker Engine was made again.")
	queueLength = describe("queue_length", "Events that wait for a consumer.", "queue")
	queueSpace  = describe("queue_capacity", "Events that can wait for a consumer.", "queue")
	queueDrops  = describe("queue_dropped_events_total", "Events that the queue of a consumer had no room for, since the start.", "queue")

	journalWorks = describe("journal_writable", "Whether the journal can be written (1) or not (0).")
	journalLag   = describe("journal_lag_seconds", "Age of the oldest event that is not in the journal yet.")
	journalSize  = describe("journal_size_bytes", "Size of the journal.")
	journalCount = describe("journal_events_total", "Events written to the journal, since the start.")

	journalPassed = describe("journal_passed_events_total", "Events that retention deleted before the rules of alerts had read them, since the start.")

	streams     = describe("streams", "Readers of the event stream.")
	streamsLost = describe("streams_cut_off_total", "Readers of the event stream that were disconnected because they were too slow, since the start.")
)

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := sender{to}
	view := c.sources.View()
	collectCounters(s, &view.Counters)
	collectStatus(s, &view.Status)
	s.gauge(ready, truth(c.sources.Ready() == nil))
	count := 0
	for i := range view.Containers {
		if view.Containers[i].Monitored {
			count++
		}
	}
	s.gauge(monitored, float64(count))
	journal := c.sources.Journal()
	s.gauge(journalWorks, truth(journal.Writable))
	s.gauge(journalLag, journal.LagSeconds)
	s.gauge(journalSize, float64(journal.SizeBytes))
	s.counter(journalCount, journal.Written)
	s.counter(journalPassed, journal.Passed)
	if c.sources.Alerts != nil {
		collectAlerts(s, c.sources.Alerts())
	}
	if c.sources.Streams != nil {
		open, cutOff := c.sources.Streams()
		s.gauge(streams, float64(open))
		s.counter(streamsLost, cutOff)
	}
}

func collectCounters(s sender, c *model.Counters) {
	opened, closed := c.BurstOpened, c.BurstClosed
	for kind, count := range c.Events {
		s.counter(events, count, string(kind.Type), string(kind.Source))
		switch kind.Type {
		case model.Opened:
			opened += count
		case model.Closed:
			closed += count
		}
	}
	s.counter(entered, opened, "listening")
	s.counter(entered, closed, "closed")
	for source, d := range c.Detection {
		s.distribution(detection, d, string(source))
	}
	for _, stage := range c.Pipeline {
		for what, count := range map[string]uint64{
			"in": stage.In, "out": stage.Out, "counted": stage.Counted, "dropped": stage.Dropped, "lost": stage.Lost,
		} {
			s.counter(pipeline, count, stage.Name, what)
		}
		s.gauge(held, float64(stage.Held), stage.Name)
	}
}

func collectStatus(s sender, status *model.CaptureStatus) {
	s.gauge(watchers, float64(len(status.Watchers)))
	failing := 0
	for i := range status.Watchers {
		if status.Watchers[i].Stale {
			failing++
		}
	}
	s.gauge(stale, float64(failing))
	s.counter(gaps, status.Gaps)
	s.counter(overruns, status.Overruns)
	s.counter(lostEvents, status.Lost)
	s.gauge(connected, truth(status.Engine.Connected))
	s.counter(reconnects, status.Engine.Reconnects)
	for _, q := range status.Queues {
		s.gauge(queueLength, float64(q.Length), q.Name)
		s.gauge(queueSpace, float64(q.Capacity), q.Name)
		s.counter(queueDrops, q.Dropped, q.Name)
	}
}

type sender struct{ to chan<- prometheus.Metric }

func (s sender) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.send(d)(prometheus.NewConstMetric(d, prometheus.GaugeValue, value, labels...))
}

func (s sender) counter(d *prometheus.Desc, value uint64, labels ...string) {
	s.send(d)(prometheus.NewConstMetric(d, prometheus.CounterValue, float64(value), labels...))
}

func (s sender) distribution(d *prometheus.Desc, of model.Distribution, labels ...string) {
	buckets := make(map[float64]uint64, len(model.DetectionBounds))
	var count uint64
	for i, n := range of.Counts {
		count += n
		if i < len(model.DetectionBounds) {
			buckets[model.DetectionBounds[i]] = count
		}
	}
	s.send(d)(prometheus.NewConstHistogram(d, count, of.Sum, buckets, labels...))
}

// send returns a function that sends a metric, or its error.
func (s sender) send(d *prometheus.Desc) func(prometheus.Metric, error) {
	return func(metric prometheus.Metric, err error) {
		if err != nil {
			metric = prometheus.NewInvalidMetric(d, err)
		}
		s.to <- metric
	}
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
