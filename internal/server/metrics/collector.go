package metrics

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

// State is read at each scrape. Its methods are safe for concurrent use.
type State interface {
	Open() []port.Open
	Inventory() []api.Container
	Status() port.CaptureStatus
	Ready() error
	Journal() api.Journal
	Streams() api.Streams
}

// Watch names what scrapes read. It is called once.
func (m *Metrics) Watch(state State) {
	m.registry.MustRegister(&collector{metrics: m, state: state})
}

// collector reads what is true when Prometheus asks.
type collector struct {
	metrics *Metrics
	state   State
	told    sync.Once
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portwatcher_"+name, help, labels, nil)
}

var (
	listeningPorts = describe("listening_ports",
		"Endpoints that are open now.", "container_name", "protocol", "exposure")
	portInfo = describe("port_info",
		"Always 1: one endpoint that is open now.",
		"container_name", "container_id", "image", "protocol", "address", "port", "exposure", "process")
	publishedListening = describe("published_port_listening",
		"Whether something listens on a port that is published (1), or nothing does (0).",
		"container_name", "protocol", "port")
	seriesLeftOut = describe("series_left_out",
		"Series that are missing because their metric has more than --metrics-max-series.", "metric")

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
	listeningPorts, portInfo, publishedListening, seriesLeftOut,
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
	c.collectPorts(s)
	c.collectCapture(s)
	journal := c.state.Journal()
	s.gauge(journalWorks, truth(journal.Error == ""))
	s.gauge(journalLag, journal.LagSeconds)
	s.gauge(journalSize, float64(journal.SizeBytes))
	s.counter(journalCount, float64(journal.Written))
	readers := c.state.Streams()
	s.gauge(streams, float64(readers.Open))
	s.counter(streamsLost, float64(readers.CutOff))
}

func (c *collector) collectCapture(s sender) {
	status := c.state.Status()
	s.gauge(ready, truth(c.state.Ready() == nil))
	s.gauge(watchers, float64(len(status.Watchers)))
	failing := 0
	for _, w := range status.Watchers {
		if w.Stale {
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

func (c *collector) collectPorts(s sender) {
	open := c.state.Open()
	inventory := c.state.Inventory()
	watched := 0
	for _, container := range inventory {
		if container.Monitored {
			watched++
		}
	}
	s.gauge(monitored, float64(watched))
	c.collectListening(s, open)
	c.collectInfo(s, open)
	c.collectPublished(s, inventory)
}

func (c *collector) collectListening(s sender, open []port.Open) {
	type key struct {
		container string
		protocol  port.Protocol
		exposure  port.Exposure
	}
	counts := map[key]int{}
	for i := range open {
		counts[key{nameOf(open[i].Container), open[i].Protocol, open[i].Exposure}]++
	}
	budget := c.budget("portwatcher_listening_ports")
	for k, count := range counts {
		if budget.take() {
			s.gauge(listeningPorts, float64(count), k.container, k.protocol.String(), string(k.exposure))
		}
	}
	budget.tell(s)
}

func (c *collector) collectInfo(s sender, open []port.Open) {
	if len(open) > c.metrics.maxSeries {
		// What the outside can reach must not be what is left out.
		slices.SortStableFunc(open, func(a, b port.Open) int { return cmp.Compare(rank(a.Exposure), rank(b.Exposure)) })
	}
	budget := c.budget("portwatcher_port_info")
	for i := range open {
		if !budget.take() {
			continue
		}
		o := &open[i]
		var container port.ContainerRef
		if o.Container != nil {
			container = *o.Container
		}
		process := ""
		if len(o.Processes) > 0 {
			process = o.Processes[0].Name
		}
		s.gauge(portInfo, 1, container.Name, container.ID, container.Image, o.Protocol.String(),
			o.Address.String(), strconv.Itoa(int(o.Port)), string(o.Exposure), process)
	}
	budget.tell(s)
}

// rank orders exposures from what most can reach to what fewest can.
func rank(e port.Exposure) int {
	return slices.Index([]port.Exposure{port.Published, port.Host, port.Network, port.Loopback}, e)
}

func (c *collector) collectPublished(s sender, inventory []api.Container) {
	budget := c.budget("portwatcher_published_port_listening")
	for _, container := range inventory {
		if !container.Monitored {
			continue
		}
		for _, declared := range container.Declared {
			if len(declared.Published) > 0 && budget.take() {
				s.gauge(publishedListening, truth(declared.Listening),
					container.Name, declared.Protocol.String(), strconv.Itoa(int(declared.Port)))
			}
		}
	}
	budget.tell(s)
}

// budget bounds the series of one metric in one scrape.
type budget struct {
	collector *collector
	metric    string
	left      int
	excess    int
}

func (c *collector) budget(metric string) *budget {
	return &budget{collector: c, metric: metric, left: c.metrics.maxSeries}
}

func (b *budget) take() bool {
	if b.left == 0 {
		b.excess++
		return false
	}
	b.left--
	return true
}

// tell says how many were left out; the log has it once.
func (b *budget) tell(s sender) {
	s.gauge(seriesLeftOut, float64(b.excess), b.metric)
	if b.excess > 0 {
		b.collector.told.Do(func() {
			b.collector.metrics.log.Warnf("%s has %d series too many for --metrics-max-series %d; they are left out, and counted in portwatcher_series_left_out.",
				b.metric, b.excess, b.collector.metrics.maxSeries)
		})
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
	for i, label := range labels {
		// A process may give itself any bytes as a name; Prometheus wants UTF-8.
		labels[i] = strings.ToValidUTF8(label, "\uFFFD")
	}
	metric, err := prometheus.NewConstMetric(d, kind, value, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	s.to <- metric
}

func nameOf(container *port.ContainerRef) string {
	if container == nil {
		return ""
	}
	return container.Name
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
