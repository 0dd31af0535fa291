package harness

import (
	"strings"
	"testing"
	"time"
)

// Facts as the workload writes them: a port that opens twice, one that stays
// open, and a summary.
const facts = `{"action":"opened","time":"2026-11-22T20:00:00Z","after":"2026-11-22T20:00:01Z","protocol":"tcp","address":"0.0.0.0","port":80,"pid":7,"uid":0}
{"action":"opened","time":"2026-11-22T20:00:02Z","after":"2026-11-22T20:00:02Z","protocol":"udp","address":"0.0.0.0","port":80,"pid":7,"uid":0}
{"action":"closed","time":"2026-11-22T20:00:03Z","after":"2026-11-22T20:00:04Z","protocol":"tcp","address":"0.0.0.0","port":80,"pid":7,"uid":0}
{"action":"opened","time":"2026-11-22T20:00:05Z","after":"2026-11-22T20:00:05Z","protocol":"tcp","address":"0.0.0.0","port":80,"pid":7,"uid":0}
{"action":"closed","time":"2026-11-22T20:00:06Z","after":"2026-11-22T20:00:06Z","protocol":"tcp","address":"0.0.0.0","port":80,"pid":7,"uid":0}
{"action":"summary","time":"2026-11-22T20:00:07Z","after":"2026-11-22T20:00:08Z","protocol":"tcp","count":100,"pid":7}
`

func TestReadLives(t *testing.T) {
	lives, sum, err := ReadLives(facts)
	if err != nil || len(lives) != 2 || sum != 100 {
		t.Fatalf("%d lives and %d operations, want 2 and 100: %v", len(lives), sum, err)
	}
	first := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return first.Add(time.Duration(seconds) * time.Second) }
	want := Life{"tcp", "0.0.0.0", 80, 7, Moment{at(0), at(1)}, Moment{at(3), at(4)}}
	if lives[0] != want || lives[1].Opened.Before != at(5) {
		t.Errorf("%+v, want the first to be %+v", lives, want)
	}
	if !want.Opened.Holds(at(1)) || want.Opened.Holds(at(2)) || want.Closed.Holds(at(2)) {
		t.Error("a moment ends where another begins")
	}
	if _, _, err := ReadLives("no fact"); err == nil {
		t.Error("a line that is no fact is no error")
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
