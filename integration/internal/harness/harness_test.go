package harness

import (
	"slices"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

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
		Published: []string{"b", "a"}, Processes: []model.Process{{PID: 2}, {PID: 1}}}
	same := one
	same.Published, same.Processes = []string{"a", "b"}, []model.Process{{PID: 1}, {PID: 2}}
	other := one
	other.Exposure = "host"
	for _, test := range []struct {
		reported, listening []Listener
		want                []string
	}{
		{[]Listener{one}, []Listener{same}, nil},
		{nil, nil, nil},
		{[]Listener{one}, []Listener{other}, []string{"missing:  web tcp :: port 80 host", "reported: web tcp :: port 80 network"}},
		{[]Listener{one, same}, []Listener{one}, []string{"2 reported, 1 listen"}},
		{nil, []Listener{one}, []string{"missing:  web"}},
	} {
		got := Difference(test.reported, test.listening)
		lacks := func(text string) bool { return !strings.Contains(got, text) }
		if slices.ContainsFunc(test.want, lacks) || (got == "") != (test.want == nil) {
			t.Errorf("difference %q, want %q in it", got, test.want)
		}
	}
}

// Captured from Linux 6.18.
func TestCgroupLink(t *testing.T) {
	const link = "pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t26\nlink_type:\tcgroup\nlink_id:\t10743\nprog_tag:\tdd8eefbba598e6fc\nprog_id:\t11167\ncgroup_id:\t1\nattach_type:\t34\n"
	if id, found := cgroupLink(link); !found || id != 10743 {
		t.Errorf("link %d, found %v, want 10743", id, found)
	}
	for _, other := range []string{strings.Replace(link, "cgroup", "raw_tracepoint", 1), "pos:\t0\nflags:\t02\n"} {
		if id, found := cgroupLink(other); found {
			t.Errorf("%q is taken for link %d to a cgroup", other, id)
		}
	}
}
