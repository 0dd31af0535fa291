package page

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

const row = "#groups tbody tr"

// liveWeb shows the page beside one container, web, whose port 80 is open.
func liveWeb(t *testing.T, width, height int) (f *fake, web container, p *tab) {
	t.Helper()
	f = newFake(t)
	web = f.add(container{Name: "web"})
	f.emit(event(model.Opened, web, "0.0.0.0", 80))
	p = newTab(t, width, height)
	p.live(f, "/")
	return f, web, p
}

// Another exposure changes the row and the counter, and the event shows what it was.
func TestExposureChangesLive(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web"})
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by("nginx", 17), published("0.0.0.0:8080")))
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	p.waitText("[data-counter=outside] .number", "1")
	change := func(options ...func(*model.Event)) {
		was := func(e *model.Event) {
			e.Change, e.PreviousExposure, e.PreviousPublished = model.ChangeExposure, model.Published, []string{"0.0.0.0:8080"}
		}
		f.emit(event(model.Changed, web, "0.0.0.0", 80, append(options, by("nginx", 17), was)...))
	}
	change()
	p.waitText(row+" .badge.network", "network")
	p.waitText("[data-counter=outside] .number", "0")
	p.waitText("#events .event.changed", "was published *:8080")
	change(published("127.0.0.1:8080"))
	p.waitText(row+" .badge.published-local", "published")
	p.waitText("[data-counter=outside] .number", "0")
	change(func(e *model.Event) { e.Exposure = model.Lan })
	p.waitText(row+" .badge.lan", "lan")
	p.waitText("[data-counter=outside] .number", "1")
}

func TestPortsOpenAndCloseLive(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "shop_web_1", Image: "nginx:1.27", Project: "shop", Service: "web", Declared: []declared{
		{Protocol: "tcp", Port: 80, Exposed: true, Published: []string{"0.0.0.0:8080", "[::]:8080"}}}})
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	p.waitText("#groups", "published, nobody listens")
	p.waitText("[data-counter=silent] .number", "1")

	f.emit(event(model.Opened, web, "0.0.0.0", 80, by("nginx", 17), published("0.0.0.0:8080", "[::]:8080")))
	p.waitText(row+"[data-state=open]", "nginx (17)")
	p.waitText(row+" .badge.published", "published")
	p.waitText(row+" .at-host", "*:8080")
	p.waitText("[data-counter=outside] .number", "1")
	p.wait(`document.querySelector("#events .subject")?.textContent === "shop_web_1 80/tcp"`)
	ipv6Only := func(e *model.Event) { e.IPv6Only = true }
	f.emit(event(model.Opened, web, "::", 80, by("nginx", 17), published("[::]:8080"), ipv6Only))
	p.wait(`document.querySelector("#groups tbody tr .address")?.textContent === "0.0.0.0, ::"`) // both wildcards are one row
	if rows := eval[int](p, "document.querySelectorAll('#groups tbody tr').length"); rows != 1 {
		t.Errorf("%d rows for one port; want 1", rows)
	}

	python := func(e *model.Event) { e.Processes[0].Executable = "/usr/bin/python3.11" }
	f.emit(event(model.Changed, web, "0.0.0.0", 80, by("MainThread", 99), python, published("0.0.0.0:8080", "[::]:8080")))
	p.waitText(row+" .process", "MainThread (python3.11, 99)")
	f.emit(event(model.Closed, web, "0.0.0.0", 80), event(model.Closed, web, "::", 80, ipv6Only))
	p.wait(`document.querySelector("#events .at")?.textContent === ":: (IPv6 only)"`)
	p.waitText("#groups", "published, nobody listens")

	// A port that nothing declares stays for a moment as closed, then goes.
	f.emit(event(model.Opened, web, "::", 9000, ipv6Only))
	p.waitText("#groups", "not declared")
	p.waitText("#groups", ":: (IPv6 only)")
	f.emit(event(model.Closed, web, "::", 9000, ipv6Only))
	p.waitText(row+"[data-state=closed]", "9000/tcp")
	p.wait("!document.querySelector('#groups').innerText.includes('9000')")
	if kinds := eval[string](p, "[...document.querySelectorAll('#events .type')].map((e) => e.textContent).join(' ')"); kinds != "closed opened closed closed changed opened opened" {
		t.Errorf("the time line has %s", kinds)
	}
}

// A port in a namespace that the container made itself is another row.
func TestPortInAnotherNamespace(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web", Declared: []declared{{Protocol: "tcp", Port: 80, Published: []string{"0.0.0.0:8080"}}}})
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	inner := func(e *model.Event) { e.Namespace, e.Exposure = "net:[4026532281]", model.Loopback }
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by("nginx", 17), inner))
	p.waitText("#groups", "0.0.0.0 in net:[4026532281]")
	p.waitText("#groups", "published, nobody listens")
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by("nginx", 18), published("0.0.0.0:8080")))
	p.wait("document.querySelectorAll('#groups tbody tr[data-state=open]').length === 2")
	f.emit(event(model.Closed, web, "0.0.0.0", 80, inner))
	p.wait("document.querySelectorAll('#groups tbody tr[data-state=open]').length === 1")
	p.waitText(row+"[data-state=open]", "nginx (18)")
}

// The host's own ports have no container. The one that publishes a port stands beside it.
func TestHostPorts(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web"})
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	forward := func(to *model.Forward) func(*model.Event) {
		return func(e *model.Event) { e.Container, e.Exposure, e.Forward = nil, model.Host, to }
	}
	to := model.Forward{Container: model.ContainerRef{ID: web.ID, Name: "web"}, Port: 80, Engine: true}
	f.emit(event(model.Opened, web, "0.0.0.0", 8080, by("docker-proxy", 17), forward(&to)))
	p.waitText(row, "for web:80")
	p.waitText("#events .event.opened", "for web:80")
	p.waitText("[data-counter=containers] .number", "1") // the host is none
	rival := to
	rival.Engine = false
	f.emit(event(model.Opened, web, "0.0.0.0", 22, by("sshd", 18), forward(nil)))
	f.emit(event(model.Changed, web, "0.0.0.0", 22, by("sshd", 18), forward(&rival), func(e *model.Event) { e.Change = model.ChangeForward }))
	p.waitText(row+" .mark.warn", "published for web:80 too")
	p.waitText("#events .event.changed", "was not published")

	p.live(f, "/?container=(host)&port=22/tcp")
	p.waitText("#detail h2", "22/tcp")
	p.wait("document.querySelectorAll('#detail .events li').length === 2")
	p.waitText("#detail .intervals", "sshd (18)")
}

// The counters are drawn although the list of ports comes last and is empty.
func TestCountersWithoutAnyPort(t *testing.T) {
	f := newFake(t)
	f.portsAfter = make(chan struct{})
	f.add(container{Name: "web", Declared: []declared{{Protocol: "tcp", Port: 80, Published: []string{"0.0.0.0:8080"}}}})
	p := newTab(t, 1280, 900)
	p.visit(f.url("/"))
	p.waitText("#groups", "published, nobody listens")
	close(f.portsAfter)
	p.waitText("[data-counter=silent] .number", "1")
}

func TestContainersComeAndGo(t *testing.T) {
	f := newFake(t)
	f.add(container{Name: "first", Image: "redis:7"})
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	// An event of a container that is not listed yet shows at once, and has the
	// list asked for.
	second := f.add(container{Name: "second", Image: "nginx:1.27", Project: "shop"})
	f.emit(event(model.Opened, second, "0.0.0.0", 80))
	p.waitText("#groups [aria-label='Project shop']", "second")
	f.set(func() { f.containers = f.containers[:1] })
	f.emit(event(model.Closed, second, "0.0.0.0", 80))
	third := container{ID: strings.Repeat("f", 64), Name: "third"}
	f.emit(event(model.Opened, third, "0.0.0.0", 80)) // never listed: has the list asked for again
	p.wait("!document.querySelector('#groups').innerText.includes('second')")
}

func TestResumesAfterTheServerWasAway(t *testing.T) {
	f, web, p := liveWeb(t, 1280, 900)
	f.mu.Lock()
	before := count(f.asked, "/api/v1/ports")
	f.mu.Unlock()
	f.stop()
	p.waitText("#connection", "server away since")
	p.waitText("#connection", "reconnecting in")
	p.waitText("#announce", "The connection is lost")
	p.wait("document.title.startsWith('(not live)')")
	p.shoot("away")
	p.wait("!document.querySelector('#retry').hidden")

	f.emit(event(model.Opened, web, "0.0.0.0", 81), event(model.Closed, web, "0.0.0.0", 80))
	f.start(f.address)
	p.waitText(row+"[data-state=open]", "81/tcp")
	p.waitText("#connection", "live")
	p.waitText("#announce", "Connected")
	if ids := eval[string](p, "[...document.querySelectorAll('#events .subject')].map((e) => e.textContent).join(', ')"); ids != "web 80/tcp, web 81/tcp, web 80/tcp" {
		t.Errorf("the time line has %s; want each event once", ids)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.resumed) < 2 || !slices.Equal(slices.Compact(f.resumed), []string{"1"}) {
		t.Errorf("the streams began after %v; want 1 each time", f.resumed)
	}
	if n := count(f.asked, "/api/v1/ports"); n != before {
		t.Errorf("/ports was asked %d times after the server was back; want none, the events are enough", n-before)
	}
}

func count(asked []string, path string) int {
	n := 0
	for _, a := range asked {
		if a == path {
			n++
		}
	}
	return n
}

func TestLoadsAnewAfterAReset(t *testing.T) {
	f, web, p := liveWeb(t, 1280, 900)
	f.stop()
	p.waitText("#connection", "server away since")
	for number := 1000; number < 1010; number++ {
		f.emit(event(model.Opened, web, "0.0.0.0", number))
	}
	f.set(func() { f.firstID = 8 })
	f.start(f.address)
	p.waitText("#notices", "no longer had the events")
	p.wait("document.querySelectorAll('#groups tr[data-state=open]').length === 11")
	p.waitText("#reach", "all that was kept")
	// The first event is still here, but not those between: it must not look as
	// if there were none.
	if n := eval[int](p, "document.querySelectorAll('#events li').length"); n != 4 && n != 5 {
		t.Errorf("%d events are shown; want the 4 kept", n)
	}
}

func TestTellsWhatItCannotSee(t *testing.T) {
	f := newFake(t)
	f.add(container{Name: "web", Paused: true, Stale: true, NetworkMode: "host"})
	f.set(func() { f.notReady = "no connection to the engine at unix:///var/run/docker.sock" })
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	p.waitText(".notice.blind", "no connection to the engine")
	p.waitText("#groups .marks", "stale")
	p.waitText("#groups .marks", "paused")
	f.emit(model.Event{Type: model.Gap, Reason: "217 notifications were lost"})
	p.waitText("#events li.gap", "217 notifications were lost")
	p.shoot("blind")
	f.set(func() { f.notReady = ""; f.version = "1.1.0" })
	p.wait("!document.querySelector('.notice.blind')") // status is asked every 10 s
	f.stop()
	f.start(f.address)
	p.waitText(".notice.version", "1.1.0")
}

func TestBurstsAreShownAndChangeNothing(t *testing.T) {
	f, web, p := liveWeb(t, 1280, 900)
	burst := func(number int, protocol model.Protocol, count int, ports ...uint16) model.Event {
		return event(model.Bursts, web, "127.0.0.1", number, by("storm", 99), func(e *model.Event) {
			e.Protocol, e.Exposure = protocol, ""
			last := time.Date(2026, 11, 22, 18, 36, 40, 0, time.UTC)
			e.Burst = &model.Burst{Opened: 31245, Closed: 31244, First: last.Add(-1500 * time.Millisecond), Last: last, Ports: ports, PortCount: count}
		})
	}
	f.emit(burst(20000, model.TCP, 1, 20000), burst(0, model.TCP, 3, 81, 83, 90), burst(0, 0, 912, 20000, 20911))
	p.wait("document.querySelectorAll('#events li.burst').length === 3")
	if texts := eval[string](p, "[...document.querySelectorAll('#events li.burst')].map((e) => [...e.querySelectorAll('.sign, .subject, .type, .counted, .by')].map((part) => part.textContent).join('|')).join('\\n')"); texts !=
		`±|web|burst|31,245 ports opened and 31,244 closed within 1.5 s: 912 ports or more, among them 20000 to 20911 on 127.0.0.1|storm (99)
±|web|burst|31,245 ports opened and 31,244 closed within 1.5 s: 3 ports, 81 to 90, tcp on 127.0.0.1|storm (99)
±|web 20000/tcp|burst|31,245 ports opened and 31,244 closed within 1.5 s: 20000/tcp on 127.0.0.1|storm (99)` {
		t.Errorf("the bursts are\n%s", texts)
	}
	if rows := eval[string](p, "[...document.querySelectorAll('#groups th.port')].map((e) => e.textContent).join()"); rows != "80/tcp" {
		t.Errorf("%s are open; want port 80 as before", rows)
	}
	f.emit(model.Event{Type: model.Gap, Reason: "an overrun", Lost: 128})
	p.waitText("#events li.gap", "128 openings and closings were missed: an overrun")
	for path, want := range map[string]int{
		"/?type=burst": 3, "/?q=83/tcp": 1, "/?protocol=udp": 1, "/?q=storm": 3, "/?type=opened": 0,
	} {
		p.live(f, path)
		p.wait("!document.querySelector('#older').disabled")
		p.wait(fmt.Sprintf("document.querySelectorAll('#events li.burst').length === %d", want))
	}
	// In the history of a port is what it was, or may have been, among.
	for number, want := range map[string]int{"80/tcp": 1, "83/tcp": 2, "83/udp": 1, "20000/tcp": 2} {
		p.live(f, "/?container=web&port="+number)
		p.wait("document.querySelector('#detail .events li.gap')")
		p.wait(fmt.Sprintf("document.querySelectorAll('#detail .events li.burst').length === %d", want))
	}
}

func TestAsksForTheToken(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web"})
	f.emit(event(model.Opened, web, "0.0.0.0", 80))
	f.set(func() { f.token = "s3cret" })
	p := newTab(t, 1280, 900)
	p.visit(f.url("/"))
	p.wait("document.querySelector('#login').open && document.activeElement.id === 'token'")
	p.keys("\x1b")
	p.keys("wrong\r")
	p.waitText("#login-error", "not accepted")
	p.shoot("login")
	p.keys("bad token\r")
	p.waitText("#login-error", "ASCII")
	eval[bool](p, "document.querySelector('#token').value = '', true")
	p.keys("s3cret\r")
	p.waitText(row, "80/tcp")
	p.wait("!document.querySelector('#login').open && !document.querySelector('#forget').hidden")
	f.emit(event(model.Opened, web, "0.0.0.0", 81))
	p.waitText("#groups", "81/tcp")
	if where := eval[string](p, "location.href + document.cookie + JSON.stringify(localStorage)"); strings.Contains(where, "s3cret") {
		t.Errorf("the token is in %s", where)
	}

	// It survives a reload, and its replacement on the server asks again.
	p.live(f, "/")
	f.set(func() { f.token = "other" })
	f.stop()
	f.start(f.address)
	p.waitText("#login-error", "not accepted")
	p.keys("other\r")
	p.waitText("#connection", "live")
	p.click("#forget")
	p.wait("document.querySelector('#login')?.open && sessionStorage.length === 0")
}

func TestUntrustedTextStaysText(t *testing.T) {
	f := newFake(t)
	evil := `<img src=x onerror=alert(1)><b>bold</b>`
	web := f.add(container{Name: "web", Image: evil, Project: evil, Service: evil})
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by(evil, 7)), model.Event{Type: model.Gap, Reason: evil})
	p := newTab(t, 1280, 900)
	p.live(f, "/?container=web&port=80/tcp")
	p.waitText("#detail .processes", evil)
	p.waitText("#groups h2", evil)
	p.wait("document.querySelectorAll('#events li').length === 2")
	if n := eval[int](p, "document.querySelectorAll('b, img:not([src=\"assets/icon.svg\"])').length"); n != 0 {
		t.Errorf("%d elements were made of text", n)
	}
}

// The connection's own rules, with times that a test can wait for.
func TestStreamGivesUpASilentConnection(t *testing.T) {
	f, web, p := liveWeb(t, 800, 600)
	eval[bool](p, `(async () => {
		const { Stream } = await import('/assets/stream.js');
		const { API } = await import('/assets/api.js');
		window.seen = { states: [], ids: [] };
		const stream = new Stream(new API(() => {}), {
			prepare: async () => 0, opened() {}, reset() {}, events: (events) => seen.ids.push(...events.map((e) => e.id)),
			state: ({ state, reason }) => seen.states.push(state + (reason ? ': ' + reason : '')),
		}, { watchdog: 300, base: 50, max: 100 });
		stream.start();
		return true;
	})()`)
	p.wait("seen.states.includes('waiting: nothing was heard from the server') && seen.states.filter((s) => s === 'live').length >= 2")
	f.emit(event(model.Opened, web, "0.0.0.0", 81))
	p.wait("seen.ids.includes(2)")
	if ids := eval[string](p, "seen.ids.join()"); ids != "1,2" {
		t.Errorf("events %s were handed on; want each once", ids)
	}
}

func TestParserReadsAnyChunks(t *testing.T) {
	f := newFake(t)
	p := newTab(t, 800, 600)
	p.live(f, "/")
	got := eval[string](p, `(async () => {
		const { Parser } = await import('/assets/sse.js');
		const text = '\ufeff: comment\r\nretry: 250\nid: 7\nevent: opened\ndata: {"a":1}\n\n' + 'data\rdata:x\rdata:  y\r\r' + 'event: end\r\ndata: ü\r\nignored: 1\r\n\r\n' + 'data: unfinished\n';
		const all = new Set();
		for (let size = 1; size <= text.length; size++) {
			const parser = new Parser();
			const messages = [];
			for (let at = 0; at < text.length; at += size) messages.push(...parser.push(text.slice(at, at + size)));
			all.add(JSON.stringify(messages));
		}
		return [...all].join(' AND ');
	})()`)
	want := `[{"retry":250},{"type":"opened","data":"{\"a\":1}","id":"7"},{"type":"message","data":"\nx\n y","id":null},{"type":"end","data":"ü","id":null}]`
	if got != want {
		t.Errorf("the parser read %s; want %s", got, want)
	}
}

// The page comes to the same state as the server by any sequence of events.
func TestEventsAndListAgree(t *testing.T) {
	f := newFake(t)
	var all []container
	for i := range 5 {
		all = append(all, f.add(container{Name: fmt.Sprintf("c%d", i), Declared: []declared{{Protocol: "tcp", Port: 1002, Exposed: true}}}))
	}
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	kinds := []model.Type{model.Opened, model.Closed, model.Opened, model.Changed}
	for i := range 400 {
		// Any fixed mixture does; it needs no chance.
		f.emit(event(kinds[i*7%4], all[i*i%5], []string{"0.0.0.0", "::", "127.0.0.1"}[i*3%7%3], 1000+i*11%6))
	}
	want := map[string]bool{}
	f.mu.Lock()
	for e := range f.open {
		address := e.Address.String()
		if e.Address.IsUnspecified() {
			address = "*"
		}
		want[fmt.Sprintf("%s %d %s", e.Container[60:], e.Port, address)] = true
	}
	f.mu.Unlock()
	kernel.Eventually(t, fmt.Sprintf("%d rows are open", len(want)), func() bool {
		return eval[int](p, "document.querySelectorAll('#groups tr[data-state=open]').length") == len(want)
	})
	p.wait(fmt.Sprintf("document.querySelector('[data-counter=open] .number').textContent === '%d'", len(want)))
}
