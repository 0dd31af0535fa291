package top

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"portwatcher/internal/model"
)

var (
	web  = listener("web", 80, "0.0.0.0", model.Published, "0.0.0.0:8080", "[::]:8080")
	db   = listener("db", 5432, "127.0.0.1", model.Loopback)
	back = listener("api", 9000, "fd00::1234:5678:9abc:def0", model.Network)
)

func three(t *testing.T) *view {
	t.Helper()
	v := newView(t, openAt(web, begin.Add(-90*time.Second)), openAt(db, begin.Add(-26*time.Hour)), openAt(back, begin.Add(-5*time.Second)))
	v.board.setStatus(watchStatus{Host: "node1", Containers: 3, Gaps: 2, Sources: []model.Source{model.SourceEBPF, model.SourceSockDiag, model.SourceEBPF}})
	v.tick()
	return v
}

func TestTable(t *testing.T) {
	v := three(t)
	v.wants("portwatcher on node1  live from the test", "3 open ports, 3 containers, 3 network namespaces  source ebpf, sock_diag  2 gaps",
		"CONTAINER↑", "published *:8080", "1880 nginx", "1m30s", "1d02h", "No event yet", "q quit", "1/3")
	v.order("api", "db", "web")
	v.clock = v.clock.Add(2 * time.Second)
	v.tick()
	v.wants("1m32s")
}

func TestSort(t *testing.T) {
	v := three(t)
	for _, test := range []struct {
		title string
		rows  []string
	}{
		{"PORT↑", []string{"web", "db", "api"}},
		{"ADDRESS↑", []string{"web", "db", "api"}},
		{"EXPOSURE↑", []string{"web", "api", "db"}},
		{"PROCESS↑", []string{"api", "db", "web"}},
		{"OPEN FOR↑", []string{"api", "web", "db"}},
		{"CONTAINER↑", []string{"api", "db", "web"}},
	} {
		v.key("s")
		v.wants(test.title)
		v.order(test.rows...)
	}
	v.key("S")
	v.wants("CONTAINER↓")
	v.order("web", "db", "api")
}

func TestFilter(t *testing.T) {
	v := three(t)
	v.board.Event(event(1, model.Opened, web))
	v.board.Event(event(2, model.Opened, db))
	v.tick()
	v.key("/", "L", "o", "O", "x", "backspace", "p")
	v.wants("/LoOp_", "1/1", "db")
	v.wantsNot("api ", "1880")
	v.key("q") // is text now
	v.wants("/LoOpq_", `No open port has "LoOpq" in its row`)
	v.key("backspace", "enter")
	v.wants(`filter "LoOp": 1 of 3`, "5432/tcp on 127.0.0.1 loopback")
	v.key("esc")
	v.order("api", "db", "web")
	v.key("/")
	v.Update(tea.PasteMsg{Content: "8080\x1b[2J\n"})
	v.wants("/8080?[2J?_")
	v.key("ctrl+u", "[", ":", ":", "]") // an address that the table shortens
	v.order("web")
	v.Update(tea.PasteMsg{Content: strings.Repeat("x", 5*maxFilter)})
	if got := len(v.filter); got != maxFilter {
		t.Errorf("the filter has %d characters, want %d", got, maxFilter)
	}
	v.key("esc")
	v.wants("3 open ports")
}

func TestLiveEvents(t *testing.T) {
	v := three(t)
	v.board.Event(event(1, model.Closed, db))
	late := listener("late", 8443, "::", model.Host)
	late.IPv6Only = true
	v.board.Event(event(2, model.Opened, late))
	flash := listener("flash", 7, "0.0.0.0", model.Network)
	opened, closed := event(3, model.Opened, flash), event(4, model.Closed, flash)
	opened.Transient, closed.Transient = true, true
	v.board.Event(opened)
	v.board.Event(closed)
	changed := web
	changed.Processes = []model.Process{{PID: 77, Name: "caddy"}}
	v.board.Event(event(5, model.Changed, changed))
	v.board.Event(&model.Event{ID: 6, Time: begin, Type: model.Gap, Reason: "overrun"})
	burst := event(7, model.Bursts, listener("flash", 20000, "127.0.0.1", ""))
	burst.Burst = &model.Burst{Opened: 31245, Closed: 31244, First: begin, Last: begin.Add(time.Second), Ports: []uint16{20000}, PortCount: 1}
	v.board.Event(burst)
	v.board.Event(&model.Event{ID: 8, Time: begin, Type: model.Gap, Reason: "overrun", Lost: 128})
	v.board.Event(event(2, model.Opened, db)) // a late event: only the set of open ports takes it
	v.tick()
	v.order("api", "db", "+late", "+web")
	v.wants("77 caddy", "18:36:28.124 closed    db 5432/tcp on 127.0.0.1 after 12.3s by 7232 nginx",
		"opened    late 8443/tcp on :: (IPv6 only) host", "transient flash 7/tcp on 0.0.0.0 after 12.3s", "changed   web 80/tcp", "gap       overrun", "1m30s",
		"burst     flash 31245 ports opened and 31244 closed within 1.0s:…", "overrun (lost 128 openings and closings)")
	if count := strings.Count(v.drawn(), "transient flash"); count != 1 {
		t.Errorf("the transient is shown %d times, want once:\n%s", count, v.drawn())
	}
	v.clock = v.clock.Add(newFor)
	v.tick()
	v.wantsNot("+late")
	v.key("e")
	v.wantsNot("EVENTS", "transient")
	v.key("e")
	v.wants("EVENTS")
}

// What differs from what is expected is marked in the table and in the events, and found by a search.
func TestDrift(t *testing.T) {
	v := three(t)
	late := event(1, model.Opened, listener("late", 8443, "0.0.0.0", model.Host))
	late.Drift = model.DriftUnexpected
	v.board.Event(late)
	wider := event(2, model.Drifted, db)
	wider.Drift, wider.Reason = model.DriftWider, "the expectations have changed"
	v.board.Event(wider)
	v.tick()
	v.wants("host [unexpecte", "loopback [wider]", "drift     db Drift began: 5432/tcp", "opened    late 8443/tcp on 0.0.0.0 host")
	ended := event(3, model.Drifted, db)
	ended.Drift, ended.Ended = model.DriftWider, true
	v.board.Event(ended)
	v.tick()
	v.wantsNot("[wider]")
	v.wants("drift     db Drift ended: 5432/tcp")
}

func TestEventsOfAPort(t *testing.T) {
	other := listener("other", 80, "0.0.0.0", model.Network)
	several := func(protocol model.Protocol, count int, ports ...uint16) *model.Event {
		l := web
		l.Port, l.Protocol = 0, protocol
		e := event(1, model.Bursts, l)
		e.Burst = &model.Burst{Ports: ports, PortCount: count}
		return e
	}
	one := event(1, model.Bursts, web)
	one.Burst = &model.Burst{Ports: []uint16{80}, PortCount: 1}
	for name, test := range map[string]struct {
		event *model.Event
		want  bool
	}{
		"its own":                    {event(1, model.Opened, web), true},
		"another container's":        {event(1, model.Opened, other), false},
		"a burst of it alone":        {one, true},
		"a burst with it":            {several(model.TCP, 2, 79, 80), true},
		"a burst without it":         {several(model.TCP, 2, 79, 81), false},
		"a burst of unknown ports":   {several(model.TCP, 3, 79, 81), true},
		"a burst of the other kind":  {several(model.UDP, 3, 79, 81), false},
		"a burst of both protocols":  {several(0, 3, 79, 81), true},
		"a burst that counts nobody": {event(1, model.Bursts, other), false},
	} {
		if got := concerns(test.event, &web); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// The cursor stays on its endpoint while the rows around it change.
func TestCursor(t *testing.T) {
	v := newView(t, many(100)...)
	page := v.layout().rows
	v.wants("> container-000", "1/100")
	v.key("down", "j", "k")
	v.wants("2/100", "1001/tcp")
	v.board.Event(event(1, model.Opened, listener("a-first", 1, "::", model.Network)))
	v.tick()
	v.wants("3/101")
	if v.selected.Port != 1001 {
		t.Errorf("the cursor is at port %d, want 1001", v.selected.Port)
	}
	v.key("end")
	v.wants("101/101", "> container-009  1099/tcp")
	v.key("pgup")
	v.wants(fmt.Sprintf("%d/101", 101-page+1))
	v.key("pgdown", "pgdown", "down", "G")
	v.wants("101/101")
	v.key("home", "up")
	v.wants("1/101", ">+a-first")
	v.board.Event(event(2, model.Closed, listener("a-first", 1, "::", model.Network)))
	v.tick()
	v.wants("1/100", "> container-000  1000/tcp")
}

func TestPause(t *testing.T) {
	v := three(t)
	v.key("p")
	v.wants("PAUSED")
	v.clock = v.clock.Add(time.Minute)
	v.board.Event(event(1, model.Closed, web))
	v.tick()
	v.wants("web", "1m30s")
	v.key("p")
	v.wantsNot("PAUSED", "1m30s")
	v.order("api", "db")
}

func TestDetails(t *testing.T) {
	v := three(t)
	old := event(1, model.Closed, web)
	old.Processes, old.Time = nil, begin.Add(-48*time.Hour)
	other := event(3, model.Opened, db)
	v.source.events = []*model.Event{old, event(2, model.Opened, web), other}
	v.key("end", "enter")
	v.wants("80/tcp on 0.0.0.0 in web, open for 1m30s", "web (shop/web) 8f8f8f8f8f8f", "nginx:1.27",
		"published at 0.0.0.0:8080, [::]:8080", "pid 1880 nginx, 1 in the container, /usr/sbin/nginx",
		"2026-11-20 18:36:28.123 closed    80/tcp on 0.0.0.0 after 12.3s", "2026-11-22 18:36:28.125 opened")
	v.wantsNot("5432")
	v.board.Event(event(9, model.Closed, web))
	v.tick()
	v.wants("not open any more", "18:36:28.132 closed")
	v.key("esc")
	v.order("api", "db")
	v.source.err = errors.New("the instance\nis gone")
	v.key("enter")
	v.wants("The history cannot be read: the instance; is gone")
	v.key("up", "pgup", "home", "down", "end", "?")
	v.wants("KEYS", "any key leads back")
	v.key("x", "enter")
	v.wants("EVENTS")
}

func TestHistoryScrolls(t *testing.T) {
	v := newView(t, openAt(web, begin))
	for id := range uint64(100) {
		v.source.events = append(v.source.events, event(id+1, model.Opened, web))
	}
	v.key("enter")
	v.wants("28.223")
	v.wantsNot("28.124")
	v.key("home")
	v.wants("28.124")
	v.wantsNot("28.223")
	v.key("end")
	v.wants("28.223")
}

func TestConnection(t *testing.T) {
	v := three(t)
	v.board.lost(errors.New("refused\x1b[2J"))
	v.clock = v.clock.Add(12 * time.Second)
	v.board.lost(errors.New("refused\x1b[2J"))
	v.tick()
	v.wants("connection lost 12s ago, trying again: refused?[2J", "web")
	v.board.connected()
	v.tick()
	v.wants("live from the test")
	v.board.setStatus(watchStatus{EngineError: "no engine"})
	v.tick()
	v.wants("the Docker Engine cannot be reached: no engine")
	v.board.Note("a remark %d", 1)
	v.tick()
	v.wants("a remark 1")
	v.clock = v.clock.Add(noteFor)
	v.tick()
	v.wantsNot("a remark 1")
}

func TestQuit(t *testing.T) {
	v := three(t)
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, command := v.Update(key)
		if command == nil {
			t.Fatalf("%s does nothing", key)
		}
		if _, quits := command().(tea.QuitMsg); !quits {
			t.Errorf("%s does not quit", key)
		}
	}
	v.key("/")
	if _, command := v.Update(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}); command == nil {
		t.Error("ctrl+c does not quit while the filter is typed")
	}
}
