package harness

import (
	"strings"
	"testing"
	"time"
)

func TestParseBurst(t *testing.T) {
	id := strings.Repeat("ab", 32)
	whole := `{"id":4,"time":"2026-11-22T18:36:40Z","type":"burst","host":"vm","container":{"id":"` + id + `","name":"web"},"source":"ebpf","transient":false,` +
		`"opened":512,"closed":511,"first":"2026-11-22T18:36:39Z","last":"2026-11-22T18:36:40Z","ports":[80,443],"port_count":2}`
	for _, test := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"ports":[80,443],"port_count":2`, `"port_count":900`, ""},
		{`"name":"web"`, `"name":""`, "without a container"},
		{`"opened":512,"closed":511`, `"opened":0,"closed":0`, "counts nothing"},
		{`"opened":512,`, ``, "counts nothing"},
		{`:39Z`, `:41Z`, "their order is wrong"},
		{`[80,443]`, `[443,80]`, "not in order"},
		{`[80,443]`, `[80,80]`, "not distinct"},
		{`"port_count":2`, `"port_count":1`, "more than port_count"},
		{`"transient":false`, `"transient":false,"port":80`, "of one port and of several"},
	} {
		line := strings.Replace(whole, test.old, test.new, 1)
		e, problem := parseEvent(line, time.Date(2026, 11, 22, 18, 36, 41, 0, time.UTC))
		if (problem == "") != (test.want == "") || !strings.Contains(problem, test.want) {
			t.Errorf("%s: %q; want %q", line, problem, test.want)
		}
		if test.want == "" && (e.Opened == nil || *e.Opened != 512 || *e.Closed != 511) {
			t.Errorf("%s: %+v", line, e)
		}
	}
}
