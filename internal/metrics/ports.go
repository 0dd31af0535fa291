package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// The labels of each metric are in alphabetical order, as the formats have them.
var (
	driftLabels     = []string{"container_name", "kind", "port", "protocol"}
	listeningLabels = []string{"container_name", "exposure", "outside", "protocol"}
	infoLabels      = []string{"address", "container_id", "container_name", "exposure", "image", "outside", "port", "process", "protocol"}
	publishedLabels = []string{"container_name", "port", "protocol"}
)

// ports are the metrics with a number of series that grows with the number of ports.
type ports struct {
	log       logrus.FieldLogger
	maxSeries int // of each metric
	sources   Sources
	leftOut   sync.Once // logs that series are left out

	mutex   sync.Mutex
	version uint64 // of the view that is encoded
	forms   map[expfmt.Format][]encoded
}

// encoded is a metric in one format.
type encoded struct {
	name string
	text []byte // immutable
}

// encoded returns the metrics of the current view, in the order of their names. Scrapes of the
// same version share them.
func (p *ports) encoded(format expfmt.Format) ([]encoded, error) {
	if p.sources.View == nil {
		return nil, nil
	}
	view := p.sources.View()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.forms == nil || p.version != view.Version {
		p.version, p.forms = view.Version, map[expfmt.Format][]encoded{}
	}
	if form := p.forms[format]; form != nil {
		return form, nil
	}
	form := []encoded{}
	for _, family := range p.families(view) {
		var text bytes.Buffer
		if err := expfmt.NewEncoder(&text, format).Encode(family); err != nil {
			return nil, fmt.Errorf("encode %s: %w", family.GetName(), err)
		}
		form = append(form, encoded{family.GetName(), text.Bytes()})
	}
	p.forms[format] = form
	return form, nil
}

// families returns the metrics that have a series, in the order of their names.
func (p *ports) families(view *model.View) []*dto.MetricFamily {
	all := []*family{
		p.drift(view),
		p.listening(view),
		p.info(view),
		p.published(view),
	}
	leftOut := newFamily("series_left_out", "Series that are missing because their metric has more than --metrics-max-series.", len(all), "metric")
	for _, f := range all {
		leftOut.add(f.excess, f.GetName())
		if f.excess > 0 {
			p.leftOut.Do(func() {
				p.log.Warnf("%s has %d series too many for --metrics-max-series %d; they are left out, and counted in portwatcher_series_left_out.",
					f.GetName(), f.excess, p.maxSeries)
			})
		}
	}
	var families []*dto.MetricFamily
	for _, f := range append(all, leftOut) {
		if len(f.Metric) > 0 {
			families = append(families, &f.MetricFamily)
		}
	}
	return families
}

func (p *ports) drift(view *model.View) *family {
	f := newFamily("drift", "Endpoints that differ from what is expected; 1 for a port that is missing and a container that no expectation covers.", p.maxSeries, driftLabels...)
	counts := map[[4]string]int{}
	var order [][4]string
	for i := range view.Drifts {
		d := &view.Drifts[i]
		labels := [4]string{d.Target, string(d.Drift)}
		if d.Container != nil {
			labels[0] = d.Container.Name
		}
		if d.Port != 0 {
			labels[2] = strconv.Itoa(int(d.Port))
		}
		if d.Protocol != 0 {
			labels[3] = d.Protocol.String()
		}
		if counts[labels] == 0 {
			order = append(order, labels)
		}
		counts[labels] += max(d.Endpoints, 1) // endpoints of several exposures are one series
	}
	for _, labels := range order {
		f.add(counts[labels], labels[:]...)
	}
	return f
}

func (p *ports) listening(view *model.View) *family {
	f := newFamily("listening_ports", "Endpoints that are open now.", p.maxSeries, listeningLabels...)
	counts := map[[4]string]int{}
	for i := range view.Open {
		o := &view.Open[i]
		counts[[4]string{containerOf(o).Name, string(o.Exposure), outsideOf(o), o.Protocol.String()}]++
	}
	for _, labels := range slices.SortedFunc(maps.Keys(counts), func(a, b [4]string) int { return slices.Compare(a[:], b[:]) }) {
		f.add(counts[labels], labels[:]...)
	}
	return f
}

func (p *ports) info(view *model.View) *family {
	f := newFamily("port_info", "Always 1: one endpoint that is open now.", p.maxSeries, infoLabels...)
	order := make([]*model.Open, len(view.Open))
	for i := range view.Open {
		order[i] = &view.Open[i]
	}
	if len(order) > p.maxSeries { // leave out those with the narrowest reach
		slices.SortStableFunc(order, func(a, b *model.Open) int {
			return model.CompareReach(a.Exposure, b.Exposure)
		})
	}
	type series struct {
		model.Endpoint
		model.Exposure
		outside, process string
	}
	known := map[series]bool{}
	for _, o := range order {
		c, process := containerOf(o), ""
		if len(o.Processes) > 0 {
			process = o.Processes[0].Name
		}
		s := series{o.Endpoint(), o.Exposure, outsideOf(o), process}
		s.Namespace = "" // no label has it: endpoints that differ in it alone are one series
		if known[s] {
			continue
		}
		known[s] = true
		f.add(1, o.Address.String(), c.ID, c.Name, string(o.Exposure), c.Image, outsideOf(o), strconv.Itoa(int(o.Port)), process, o.Protocol.String())
	}
	return f
}

func (p *ports) published(view *model.View) *family {
	f := newFamily("published_port_listening", "Whether something listens on a port that is published (1), or nothing does (0).", p.maxSeries, publishedLabels...)
	for _, port := range p.sources.Published(view) {
		f.add(int(truth(port.Listening)), port.Container, strconv.Itoa(int(port.Port)), port.Protocol.String())
	}
	return f
}

// containerOf returns the container of an endpoint; where it has none, one with the name
// [model.HostName] and no id.
func containerOf(o *model.Open) *model.ContainerRef {
	if o.Container == nil {
		return &model.ContainerRef{Name: model.HostName}
	}
	return o.Container
}

// outsideOf is the label outside: true, false, or empty where it is not known.
func outsideOf(o *model.Open) string {
	if o.Outside == nil {
		return ""
	}
	return strconv.FormatBool(*o.Outside)
}

// family is a gauge with at most so many series.
type family struct {
	dto.MetricFamily
	labels []string
	most   int
	excess int // series that were left out
}

func newFamily(name, help string, most int, labels ...string) *family {
	f := &family{labels: labels, most: most}
	f.Name, f.Help, f.Type = new("portwatcher_"+name), &help, dto.MetricType_GAUGE.Enum()
	return f
}

// add adds a series with the values of the labels, which it keeps.
func (f *family) add(value int, labels ...string) {
	if len(f.Metric) == f.most {
		f.excess++
		return
	}
	series := &struct { // one allocation
		dto.Metric
		gauge dto.Gauge
		value float64
	}{value: float64(value)}
	series.gauge.Value, series.Gauge = &series.value, &series.gauge
	series.Label = make([]*dto.LabelPair, len(labels))
	pairs := make([]dto.LabelPair, len(labels))
	for i := range labels {
		// A process may give itself any bytes as a name.
		labels[i] = output.Visible(strings.ToValidUTF8(labels[i], "\uFFFD"))
		pairs[i].Name, pairs[i].Value = &f.labels[i], &labels[i]
		series.Label[i] = &pairs[i]
	}
	f.Metric = append(f.Metric, &series.Metric)
}
