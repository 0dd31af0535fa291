package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"portwatcher/internal/model"
)

// State is read at each scrape. Its methods are safe for concurrent use, and
// return within milliseconds.
type State interface {
	View() *model.View
	// Published returns the published ports of the monitored containers.
	Published(*model.View) []Published
	// Ready returns nil while everything is watched.
	Ready() error
	Journal() Journal
	// Streams returns how many readers of the event stream there are, and how many
	// were cut off since the start.
	Streams() (open int, cutOff uint64)
}

// Published is a published port of a container.
type Published struct {
	Container string // its name
	Protocol  model.Protocol
	Port      uint16
	// Listening says that something others can reach listens there.
	Listening bool
}

// Journal tells of the record of events.
type Journal struct {
	Writable bool
	// LagSeconds is the age of the oldest event that is not recorded yet.
	LagSeconds float64
	SizeBytes  int64
	// Written is how many events were recorded since the start.
	Written uint64
}

// collector reads what is true when Prometheus asks, but for what has a series for
// each port.
type collector struct{ state State }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portwatcher_"+name, help, labels, nil)
}

var (
	events    = describe("events_total", "Events since the start, by type and by what told of them.", "type", "source")
	entered   = describe("ports_total", "Ports that began to listen, or were closed, since the start: those of events and those counted in bursts.", "state")
	detection = describe("detection_latency_seconds",
		"Time from a change in the kernel to its event, where the source knows the exact moment of the change.", "source")
	pipeline = describe("pipeline_total",
		"Openings and closings at a stage of the pipeline since the start: those that came in, and what became of them.", "stage", "what")
	held = describe("pipeline_held", "Openings and closings that are in a stage of the pipeline now.", "stage")

	ready       = describe("ready", "Whether everything is watched (1) or something is in the way (0).")
	watchers    = describe("watchers", "Network namespaces that are watched.")
	stale       = describe("stale_watchers", "Watched network namespaces whose last look failed.")
	monitored   = describe("monitored_containers", "Containers that are monitored.")
	gaps        = describe("gaps_total", "Gaps in what was seen, since the start.")
	overruns    = describe("overruns_total", "How often the kernel had more to tell than was read in time, since the start.")
	lostEvents  = describe("lost_events_total", "Events that no queue could take, since the start.")
	connected   = describe("engine_connected", "Whether the Docker Engine is connected (1) or not (0).")
	reconnects  = describe("engine_reconnects_total", "How often the connection to the Docker Engine was made again.")
	queueLength = describe("queue_length", "Events that wait for a consumer.", "queue")
	queueSpace  = describe("queue_capacity", "Events that can wait for a consumer.", "queue")
	queueDrops  = describe("queue_dropped_events_total", "Events that a consumer's queue could not take, since the start.", "queue")

	journalWorks = describe("journal_writable", "Whether the journal can be written (1) or not (0).")
	journalLag   = describe("journal_lag_seconds", "Age of the oldest event that is not in the journal yet.")
	journalSize  = describe("journal_size_bytes", "Size of the journal.")
	journalCount = describe("journal_events_total", "Events written to the journal, since the start.")

	streams     = describe("streams", "Readers of the event stream.")
	streamsLost = describe("streams_cut_off_total", "Readers of the event stream that were cut off because they were too slow, since the start.")
)

var descriptions = []*prometheus.Desc{
	events, entered, detection, pipeline, held,
	ready, watchers, stale, monitored, gaps, overruns, lostEvents, connected, reconnects, queueLength, queueSpace, queueDrops,
	journalWorks, journalLag, journalSize, journalCount, streams, streamsLost,
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := sender{to}
	view := c.state.View()
	collectCounters(s, &view.Counters)
	collectStatus(s, &view.Status)
	s.gauge(ready, truth(c.state.Ready() == nil))
	watched := 0
	for i := range view.Containers {
		if view.Containers[i].Monitored {
			watched++
		}
	}
	s.gauge(monitored, float64(watched))
	journal := c.state.Journal()
	s.gauge(journalWorks, truth(journal.Writable))
	s.gauge(journalLag, journal.LagSeconds)
	s.gauge(journalSize, float64(journal.SizeBytes))
	s.counter(journalCount, float64(journal.Written))
	open, cutOff := c.state.Streams()
	s.gauge(streams, float64(open))
	s.counter(streamsLost, float64(cutOff))
}

func collectCounters(s sender, c *model.Counters) {
	opened, closed := c.BurstOpened, c.BurstClosed
	for kind, count := range c.Events {
		s.counter(events, float64(count), string(kind.Type), string(kind.Source))
		switch kind.Type {
		case model.Opened:
			opened += count
		case model.Closed:
			closed += count
		}
	}
	s.counter(entered, float64(opened), "listening")
	s.counter(entered, float64(closed), "closed")
	for source, d := range c.Detection {
		s.distribution(detection, d, string(source))
	}
	for _, stage := range c.Pipeline {
		for what, count := range map[string]uint64{
			"in": stage.In, "out": stage.Out, "counted": stage.Counted, "dropped": stage.Dropped, "lost": stage.Lost,
		} {
			s.counter(pipeline, float64(count), stage.Name, what)
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
	s.counter(gaps, float64(status.Gaps))
	s.counter(overruns, float64(status.Overruns))
	s.counter(lostEvents, float64(status.Lost))
	s.gauge(connected, truth(status.Engine.Connected))
	s.counter(reconnects, float64(status.Engine.Reconnects))
	for _, q := range status.Queues {
		s.gauge(queueLength, float64(q.Length), q.Name)
		s.gauge(queueSpace, float64(q.Capacity), q.Name)
		s.counter(queueDrops, float64(q.Dropped), q.Name)
	}
}

// sender hands metrics on.
type sender struct{ to chan<- prometheus.Metric }

func (s sender) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, value, labels)
}

func (s sender) counter(d *prometheus.Desc, value float64, labels ...string) {
	s.send(d, prometheus.CounterValue, value, labels)
}

func (s sender) send(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	metric, err := prometheus.NewConstMetric(d, kind, value, labels...)
	s.sendValid(d, metric, err)
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
	metric, err := prometheus.NewConstHistogram(d, count, of.Sum, buckets, labels...)
	s.sendValid(d, metric, err)
}

func (s sender) sendValid(d *prometheus.Desc, metric prometheus.Metric, err error) {
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	s.to <- metric
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
