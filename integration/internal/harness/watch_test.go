package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// event returns a line as portwatcher prints it, with some of its text replaced.
func event(id int, kind string, replacements ...string) string {
	line := fmt.Sprintf(`{"id":%d,"time":%q,"type":%q,"host":"node1","container":{"id":%q,"name":"web"},`+
		`"protocol":"tcp","address":"0.0.0.0","port":80,"exposure":"network","source":"sock_diag","transient":false`,
		id, time.Now().UTC().Format(time.RFC3339Nano), kind, strings.Repeat("8f", 32))
	if kind == "closed" {
		line += `,"opened_at":"2026-11-22T18:36:28.123456789Z","open_seconds":1.5`
	}
	return strings.NewReplacer(replacements...).Replace(line + "}")
}

// A watch finds what breaks the contract, and nothing else.
func TestWatchFindsBrokenEvents(t *testing.T) {
	const reason = `{"id":1,"type":"gap","time":"2026-11-22T18:36:28Z","reason":"messages were lost"}`
	for name, test := range map[string]struct {
		lines []string
		want  string // "" is no problem
	}{
		"none":              {[]string{event(7, "opened"), event(8, "changed"), event(9, "closed"), event(10, "opened")}, ""},
		"two ports":         {[]string{event(1, "opened"), event(2, "opened", `"port":80`, `"port":81`)}, ""},
		"two containers":    {[]string{event(1, "opened"), event(2, "opened", "8f8f", "9a9a")}, ""},
		"gap":               {[]string{reason}, ""},
		"gap for no reason": {[]string{strings.ReplaceAll(reason, "messages were lost", "")}, "without a reason"},
		"opened twice":      {[]string{event(1, "opened"), event(2, "opened")}, "open already"},
		"closed twice":      {[]string{event(1, "opened"), event(2, "closed"), event(3, "closed")}, "not open"},
		"an id left out":    {[]string{event(1, "opened"), event(3, "closed")}, "one more than 1"},
		"an id again":       {[]string{event(1, "opened"), event(1, "closed")}, "one more than 1"},
		"no JSON":           {[]string{"New port opened"}, "not a JSON object"},
		"no container":      {[]string{event(1, "opened", "container", "other")}, "no container"},
		"no exposure":       {[]string{event(1, "opened", `"network"`, `""`)}, "exposure"},
		"no source":         {[]string{event(1, "opened", `"sock_diag"`, `""`)}, "source"},
		"unknown type":      {[]string{event(1, "vanished")}, "unknown type"},
		"local time":        {[]string{event(1, "opened", `Z",`, `+01:00",`)}, "its time"},
		"transient": {[]string{event(1, "opened", `":false`, `":true`),
			event(2, "closed", `":false`, `":true`, "opened_at", "at", "open_seconds", "seconds")}, ""},
		"closed, no span": {[]string{event(1, "opened"), event(2, "closed", "open_seconds", "seconds")}, "open_seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			watch := &Watch{open: make(map[string]Event)}
			for _, line := range test.lines {
				watch.event(line)
			}
			switch {
			case test.want == "" && len(watch.broken) > 0:
				t.Errorf("found %q, want nothing", watch.broken)
			case test.want != "" && (len(watch.broken) != 1 || !strings.Contains(watch.broken[0], test.want)):
				t.Errorf("found %q, want one with %q", watch.broken, test.want)
			}
		})
	}
}

// Rows of /proc/net/tcp6 and udp from a real system.
func TestParseRow(t *testing.T) {
	for _, test := range []struct{ protocol, row, want, inode string }{
		{"tcp", "0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1184 1 0 100 0 0 10 0",
			" tcp 0.0.0.0 port 2024 network", "1184"},
		{"tcp", "0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0",
			" tcp ::1 port 80 loopback", "77"},
		{"udp", "7: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 78 2 0 0",
			" udp 127.0.0.1 port 53 loopback", "78"},
		{"tcp", "1: 020200C0:DF50 507100CB:01BB 06 00000000:00000000 03:000012D0 00000000     0        0 0 3 0", "", ""},
		{"udp", "1: 0100007F:DF50 0100007F:01BB 01 00000000:00000000 00:00000000 00000000     0        0 79 2 0 0", "", ""},
	} {
		listener, inode := parseRow(t, test.protocol, test.row)
		got := ""
		if listener != nil {
			got = listener.String()
		}
		if got != test.want || inode != test.inode {
			t.Errorf("%s: %q inode %q, want %q inode %q", test.row, got, inode, test.want, test.inode)
		}
	}
}

// A difference names what is missing and what is too much, also of two alike.
func TestDifference(t *testing.T) {
	one := Listener{Container: "web", Protocol: "tcp", Address: "::", Port: 80, Exposure: "network",
		Published: []string{"b", "a"}, Processes: []Process{{PID: 2}, {PID: 1}}}
	same := one
	same.Published, same.Processes = []string{"a", "b"}, []Process{{PID: 1}, {PID: 2}}
	other := one
	other.Exposure = "host"
	for _, test := range []struct {
		reported, truth []Listener
		want            []string
	}{
		{[]Listener{one}, []Listener{same}, nil},
		{nil, nil, nil},
		{[]Listener{one}, []Listener{other}, []string{"missing:  web tcp :: port 80 host", "reported: web tcp :: port 80 network"}},
		{[]Listener{one, same}, []Listener{one}, []string{"2 reported, 1 true"}},
		{nil, []Listener{one}, []string{"missing:  web"}},
	} {
		got := Difference(test.reported, test.truth)
		lacks := func(text string) bool { return !strings.Contains(got, text) }
		if slices.ContainsFunc(test.want, lacks) || (got == "") != (test.want == nil) {
			t.Errorf("difference %q, want %q in it", got, test.want)
		}
	}
}
