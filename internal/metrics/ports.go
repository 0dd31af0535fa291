package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"portwatcher/internal/model"
)

// family is a gauge with a number of series that grows with the number of ports.
type family struct {
	name, help string
	labels     []string // in the order of the alphabet, as they are written
	desc       *prometheus.Desc
}

func newFamily(name, help string, labels ...string) *family {
	return &family{name: "portwatcher_" + name, help: help, labels: labels, desc: describe(name, help, labels...)}
}

// The families, in the order of their names.
var (
	listeningPorts = newFamily("listening_ports", "Endpoints that are open now.",
		"container_name", "exposure", "protocol")
	portInfo = newFamily("port_info", "Always 1: one endpoint that is open now.",
		"address", "container_id", "container_name", "exposure", "image", "port", "process", "protocol")
	publishedListening = newFamily("published_port_listening", "Whether something listens on a port that is published (1), or nothing does (0).",
		"container_name", "port", "protocol")
	seriesLeftOut = newFamily("series_left_out", "Series that are missing because their metric has more than --metrics-max-series.", "metric")

	families = []*family{listeningPorts, portInfo, publishedListening, seriesLeftOut}
)

// output takes the series of families, one family after the other.
type output interface {
	begin(*family)
	// add takes the values of the labels in their order, valid or not, and keeps none.
	add(value int, labels []string)
}

// portSeries puts out what has a series for each port.
type portSeries struct {
	metrics *Metrics
	view    *model.View
	to      output
	labels  []string // reused

	left    int // of the budget of a family
	excess  []int
	current int // index of the family
}

func (m *Metrics) putPorts(view *model.View, to output) {
	p := &portSeries{metrics: m, view: view, to: to, excess: make([]int, len(families))}
	for i, put := range []func(){p.putListening, p.putInfo, p.putPublished, p.putLeftOut} {
		p.current, p.left = i, m.maxSeries
		to.begin(families[i])
		put()
	}
}

// add puts a series out, if the budget of its family allows.
func (p *portSeries) add(value int, labels ...string) {
	if p.left == 0 {
		p.excess[p.current]++
		return
	}
	p.left--
	p.to.add(value, labels)
}

func (p *portSeries) putListening() {
	type key struct {
		container string
		exposure  model.Exposure
		protocol  model.Protocol
	}
	counts := map[key]int{}
	for i := range p.view.Open {
		o := &p.view.Open[i]
		counts[key{nameOf(o.Container), o.Exposure, o.Protocol}]++
	}
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.container, b.container), cmp.Compare(a.exposure, b.exposure), cmp.Compare(a.protocol, b.protocol))
	}) {
		p.add(counts[k], k.container, string(k.exposure), k.protocol.String())
	}
}

// byReach are the exposures from what most can reach to what fewest can.
var byReach = []model.Exposure{model.Published, model.Host, model.Network, model.Loopback}

func (p *portSeries) putInfo() {
	open := p.view.Open
	if len(open) <= p.metrics.maxSeries {
		for i := range open {
			p.putOne(&open[i])
		}
		return
	}
	// What the outside can reach must not be what is left out. What none of them has
	// is put out first.
	for rank := -1; rank < len(byReach); rank++ {
		for i := range open {
			if slices.Index(byReach, open[i].Exposure) == rank {
				p.putOne(&open[i])
			}
		}
	}
}

func (p *portSeries) putOne(o *model.Open) {
	if p.left == 0 {
		p.excess[p.current]++
		return
	}
	p.left--
	var container model.ContainerRef
	if o.Container != nil {
		container = *o.Container
	}
	process := ""
	if len(o.Processes) > 0 {
		process = o.Processes[0].Name
	}
	p.labels = append(p.labels[:0], o.Address.String(), container.ID, container.Name, string(o.Exposure), container.Image,
		strconv.Itoa(int(o.Port)), process, o.Protocol.String())
	p.to.add(1, p.labels)
}

func (p *portSeries) putPublished() {
	for _, one := range p.metrics.state.Published(p.view) {
		p.add(int(truth(one.Listening)), one.Container, strconv.Itoa(int(one.Port)), one.Protocol.String())
	}
}

// putLeftOut says how many series were left out; the log has it once.
func (p *portSeries) putLeftOut() {
	p.left = len(families)
	for i, excess := range p.excess[:len(families)-1] {
		p.add(excess, families[i].name)
		if excess > 0 {
			p.metrics.leftOut.Do(func() {
				p.metrics.log.Warnf("%s has %d series too many for --metrics-max-series %d; they are left out, and counted in portwatcher_series_left_out.",
					families[i].name, excess, p.metrics.maxSeries)
			})
		}
	}
}

func nameOf(container *model.ContainerRef) string {
	if container == nil {
		return ""
	}
	return container.Name
}

// portCollector gives the library what [rendered] writes by hand, for formats that
// are not written by hand.
type portCollector struct{ metrics *Metrics }

// Describe implements [prometheus.Collector].
func (c *portCollector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range families {
		to <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (c *portCollector) Collect(to chan<- prometheus.Metric) {
	c.metrics.putPorts(c.metrics.state.View(), &libraryOutput{sender: sender{to}})
}

type libraryOutput struct {
	sender
	family *family
}

func (o *libraryOutput) begin(f *family) { o.family = f }

func (o *libraryOutput) add(value int, labels []string) {
	valid := make([]string, len(labels))
	for i, label := range labels {
		valid[i] = strings.ToValidUTF8(label, replacement)
	}
	o.gauge(o.family.desc, float64(value), valid...)
}
