package metrics

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"portwatcher/internal/model"
)

// replacement stands for bytes that are no UTF-8: a process may give itself any
// bytes as a name.
const replacement = "\uFFFD"

// segment is a family as text.
type segment struct {
	name string
	text []byte // immutable
}

// rendered are the families that are written by hand, as text of one version of
// the view. The zero value is ready.
type rendered struct {
	mutex sync.Mutex
	forms [2]struct {
		version  uint64
		segments []segment
		size     int // bytes
	}
}

// of returns the segments in the order of their names: they are made once for all
// who ask for the same version.
func (r *rendered) of(m *Metrics, view *model.View, openMetrics bool) []segment {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	form := &r.forms[0]
	if openMetrics {
		form = &r.forms[1]
	}
	if form.segments != nil && form.version == view.Version {
		return form.segments
	}
	text := textOutput{openMetrics: openMetrics, text: make([]byte, 0, form.size*9/8)}
	m.putPorts(view, &text)
	form.version, form.segments, form.size = view.Version, text.segments(), len(text.text)
	return form.segments
}

// textOutput writes the text format, or OpenMetrics.
// Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and
// https://prometheus.io/docs/specs/om/open_metrics_spec/.
type textOutput struct {
	openMetrics bool
	text        []byte

	began  []int    // where each family begins
	prefix []string // of each label of the present family: {name=" or ",name="
	name   string
	series bool // the present family has one
}

func (o *textOutput) begin(f *family) {
	o.end()
	o.began = append(o.began, len(o.text))
	o.name, o.series = f.name, false
	o.prefix = o.prefix[:0]
	for i, label := range f.labels {
		before := `",`
		if i == 0 {
			before = "{"
		}
		o.prefix = append(o.prefix, before+label+`="`)
	}
	for _, part := range []string{"# HELP ", f.name, " ", f.help, "\n# TYPE ", f.name, " gauge\n"} {
		o.text = append(o.text, part...)
	}
}

// end takes back a family without a series.
func (o *textOutput) end() {
	if last := len(o.began) - 1; last >= 0 && !o.series {
		o.text = o.text[:o.began[last]]
	}
}

func (o *textOutput) add(value int, labels []string) {
	o.series = true
	o.text = append(o.text, o.name...)
	for i, label := range labels {
		o.text = appendLabel(append(o.text, o.prefix[i]...), label)
	}
	o.text = append(o.text, `"} `...)
	o.text = strconv.AppendInt(o.text, int64(value), 10)
	if o.openMetrics {
		o.text = append(o.text, ".0"...)
	}
	o.text = append(o.text, '\n')
}

// appendLabel appends a label's value as it stands between quotes.
func appendLabel(dst []byte, label string) []byte {
	for i := range len(label) {
		if c := label[i]; c == '\\' || c == '"' || c == '\n' || c >= utf8.RuneSelf {
			return append(dst, escapes.Replace(strings.ToValidUTF8(label, replacement))...)
		}
	}
	return append(dst, label...)
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (o *textOutput) segments() []segment {
	o.end()
	segments := make([]segment, len(families))
	for i, f := range families {
		end := len(o.text)
		if i+1 < len(families) {
			end = o.began[i+1]
		}
		segments[i] = segment{f.name, o.text[o.began[i]:end:end]}
	}
	return segments
}
