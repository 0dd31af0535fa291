package page

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"portwatcher/internal/model"
)

// shown lists the rows as "container port".
const shown = `[...document.querySelectorAll('#groups .container')].flatMap((c) => {
	const name = c.querySelector('h3 a').textContent;
	const ports = [...c.querySelectorAll('th.port a')].map((a) => name + ' ' + a.textContent);
	return ports.length ? ports : [name];
}).join(', ')`

func TestFiltersLiveInTheURL(t *testing.T) {
	f := newFake(t)
	shop(f)
	p := newTab(t, 1280, 900)
	for _, test := range []struct{ path, want, events string }{
		{"/?exposure=outside", "shop_web_1 80/tcp, node-exporter 9100/tcp, blog_admin_1 80/tcp", ""},
		{"/?exposure=network&project=blog", "blog_ghost_1 2368/tcp", ""},
		{"/?state=silent", "blog_admin_1 80/tcp", ""},
		{"/?state=undeclared&q=php-fpm", "shop_web_1 9000/tcp", "shop_web_1 9000/tcp"},
		{"/?protocol=udp", "shop_redis_1 40123/udp", "shop_redis_1 40123/udp"},
		{"/?q=80/tcp+web", "shop_web_1 80/tcp", "shop_web_1 80/tcp"},
		{"/?q=pid:998", "node-exporter 9100/tcp", "node-exporter 9100/tcp"},
		{"/?q=worker", "shop_worker_1", ""},
		{"/?project=(none)", "node-exporter 9100/tcp", "node-exporter 9100/tcp"},
		{"/?q=nothing+of+the+kind", "", ""},
		{"/?type=transient&project=blog", "", "blog_ghost_1 43111/tcp"},
		{"/?type=changed", "", "shop_web_1 9000/tcp"},
	} {
		p.live(f, test.path)
		p.wait("!document.querySelector('#older').disabled")
		got := eval[string](p, shown)
		for _, want := range strings.Split(test.want, ", ") {
			if !strings.Contains(got, want) {
				t.Errorf("%s shows %q; want %q", test.path, got, test.want)
			}
		}
		if test.want != "" && strings.Count(got, ",") != strings.Count(test.want, ",") {
			t.Errorf("%s shows %q; want %q", test.path, got, test.want)
		}
		events := eval[string](p, "[...new Set([...document.querySelectorAll('#events li:not(.gap) .subject')].map((e) => e.textContent))].join(', ')")
		if test.events != "" && events != test.events {
			t.Errorf("%s shows events of %q; want %q", test.path, events, test.events)
		}
	}
	p.live(f, "/?q=nothing+of+the+kind")
	p.waitText("#empty", "Nothing fits the filters")
	p.live(f, "/?project=blog&protocol=udp")
	p.waitText("#events li.gap", "217 destroy notifications")
}

func TestFiltersAreChangedOnThePage(t *testing.T) {
	f := newFake(t)
	web, _, _ := shop(f)
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	p.click("[data-counter=outside]")
	p.wait("location.search === '?exposure=outside' && document.querySelector('#exposure').value === 'outside'")
	p.click("[data-counter=outside]")
	p.wait("location.search === ''")
	p.click("#q")
	p.keys("redis")
	p.wait("location.search === '?q=redis'")
	p.wait(shown + " === 'shop_redis_1 6379/tcp, shop_redis_1 40123/udp'")
	// A gap may concern redis as well.
	p.waitText("#events li.gap", "217 destroy notifications")
	// What comes in follows the filter.
	f.emit(event(model.Opened, web, "0.0.0.0", 7777))
	p.waitText("[data-counter=open] .number", "10")
	if text := p.text("#timeline") + p.text("#groups"); strings.Contains(text, "7777") {
		t.Errorf("a port of another container is shown: %s", text)
	}
	p.click("#clear")
	p.wait("location.pathname + location.search === '/' && document.querySelector('#q').value === ''")
	p.waitText("#groups", "7777/tcp")
	p.waitText("#events", "7777/tcp")

	for _, test := range []struct{ path, want string }{
		{"/?exposure=everywhere", `exposure: "everywhere": allowed are outside, published, host, lan, network, loopback`},
		{"/?state=toString", `state: "toString": allowed are`},
		{"/?colour=red", "colour: unknown; allowed are q, project"},
		{"/?container=x&port=70000/tcp", `port: "70000/tcp": allowed are 1 to 65535`},
		{"/?port=80/tcp", "port: it belongs to a container"},
	} {
		p.live(f, test.path)
		p.waitText(".notice.url", test.want)
	}
}

func TestDetailsHaveTheirOwnURL(t *testing.T) {
	f := newFake(t)
	web, _, old := shop(f)
	p := newTab(t, 1280, 900)
	p.live(f, "/?project=shop")
	p.click("#groups [aria-label='Container shop_web_1'] h3 a")
	p.wait("location.search === '?project=shop&container=shop_web_1'")
	p.waitText("#detail .facts", "nginx:1.27")
	p.wait("document.querySelectorAll('#detail .events li').length === 6") // with the gap
	p.click("#detail .ports th a")
	p.wait("location.search.endsWith('&container=shop_web_1&port=80/tcp')")
	p.waitText("#detail .processes", "/usr/sbin/nginx")
	p.waitText("#detail .intervals", "open now")
	f.emit(event(model.Closed, web, "0.0.0.0", 80, by("nginx", 1827)))
	p.waitText("#detail .intervals", "2 h 5 min")
	p.wait("document.querySelector('#detail .events li')?.classList.contains('closed')")

	p.must(p.tab.Back())
	p.wait("document.querySelector('#detail h2').innerText === 'shop_web_1'")
	p.must(p.tab.Forward())
	p.wait("document.querySelector('#detail h2').innerText === '80/tcp'")
	p.keys(kb.Escape)
	p.wait("!document.querySelector('#detail').open && location.search === '?project=shop'")

	// A link that was shared, to a port that is closed and a container that is gone.
	f.set(func() { f.containers = f.containers[:1] })
	p.live(f, "/?container="+old.Name+"&port=80/tcp")
	p.waitText("#detail .state", "No running container has this name")
	p.waitText("#detail .intervals", "1 d")
	p.keys(kb.Escape)
	p.wait("!document.querySelector('#detail').open && location.search === ''")
}

func TestTimeLinePausesAndLoadsOlder(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web"})
	for number := 1; number <= 450; number++ {
		f.emit(event(model.Opened, web, "127.0.0.1", number))
	}
	p := newTab(t, 1280, 900)
	p.live(f, "/?view=events")
	items := "document.querySelectorAll('#events li').length"
	p.wait(items + " === 200")
	p.click("#older")
	p.wait(items + " === 400")
	p.click("#older")
	p.wait(items + " === 450")
	p.waitText("#reach", "all that was kept")

	p.click("#pause")
	f.emit(event(model.Opened, web, "127.0.0.1", 1000), event(model.Opened, web, "127.0.0.1", 1001))
	p.waitText("#pause", "Resume (2 new)")
	if n := eval[int](p, items); n != 450 {
		t.Errorf("%d events are shown while paused; want the 450 of before", n)
	}
	p.click("#pause")
	p.waitText("#events li .subject", "1001/tcp")
	if n := eval[int](p, "new Set([...document.querySelectorAll('#events .subject')].map((e) => e.textContent)).size"); n != 452 {
		t.Errorf("%d different events; want 452", n)
	}
}

func TestKeyboard(t *testing.T) {
	f := newFake(t)
	shop(f)
	p := newTab(t, 1280, 900)
	p.live(f, "/")
	p.wait("document.querySelectorAll('#events li').length > 0")
	focused := "document.activeElement.innerText"
	p.press("/")
	p.wait("document.activeElement.id === 'q'")
	p.keys("shop_web")
	p.wait("document.querySelectorAll('#groups .container').length === 1")
	for _, step := range []struct{ key, want string }{
		{kb.ArrowDown, "shop_web_1"}, {kb.ArrowDown, "80/tcp"}, {kb.ArrowDown, "9000/tcp"}, {kb.End, "9001/tcp"},
		{kb.ArrowDown, "9001/tcp"}, {kb.ArrowUp, "9000/tcp"}, {kb.Home, "shop_web_1"}, {kb.ArrowDown, "80/tcp"},
	} {
		p.keys(step.key)
		p.wait(fmt.Sprintf("%s === %q", focused, step.want))
		if outline := eval[string](p, "getComputedStyle(document.activeElement).outlineStyle"); outline == "none" {
			t.Errorf("the focus on %s cannot be seen", step.want)
		}
	}
	p.keys(kb.Enter)
	p.wait("document.querySelector('#detail').open && document.activeElement.id === 'detail-title'")
	p.keys(kb.Escape)
	p.wait("!document.querySelector('#detail').open && " + focused + " === '80/tcp'")
	p.press("p")
	p.waitText("#pause", "Resume")

	// The list is one stop of the tab order: the next one is the time line.
	p.keys(kb.Tab)
	p.wait("document.activeElement.closest('#timeline')")
	if stops := eval[int](p, "document.querySelectorAll('#groups a[tabindex=\"0\"]').length"); stops != 1 {
		t.Errorf("%d tab stops in the list; want 1", stops)
	}

	// A row that goes hands its focus to its neighbour.
	p.press("/")
	p.keys(kb.ArrowDown + kb.ArrowDown)
	p.wait(focused + " === '9000/tcp' || " + focused + " === '80/tcp'")
	p.keys(kb.End)
	p.wait(focused + " === '9001/tcp'")
	eval[bool](p, "document.querySelector('#state').value = 'silent', document.querySelector('#state').dispatchEvent(new Event('change')), true")
	p.wait("document.querySelectorAll('#groups a').length === 0")
}

func TestScreenReaderStructure(t *testing.T) {
	f := newFake(t)
	shop(f)
	p := newTab(t, 390, 800)
	p.live(f, "/")
	p.wait("document.querySelectorAll('#events li').length > 0")
	for what, expression := range map[string]string{
		"one h1, and no level of heading is left out": `document.querySelectorAll('h1').length === 1 && [...document.querySelectorAll('main h2, main h3')].every((h, i) => i > 0 || h.tagName === 'H2')`,
		"landmarks":                      `document.querySelector('header') && document.querySelector('main[aria-label]') && document.querySelector('aside[aria-labelledby]') && document.querySelector('[role=search]')`,
		"every control has a name":       `[...document.querySelectorAll('button, input, select')].every((e) => e.innerText.trim() || e.labels?.[0]?.textContent.trim() || e.ariaLabel || e.hidden || !e.checkVisibility())`,
		"tables keep their roles":        `[...document.querySelectorAll('#groups tbody td')].every((e) => e.role === 'cell') && [...document.querySelectorAll('#groups tbody th')].every((e) => e.role === 'rowheader' && e.scope === 'row')`,
		"only what matters is announced": `[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].every((e) => !e.closest('#groups, #events, #counters, #connection'))`,
		"targets are large enough":       `[...document.querySelectorAll('header button, select, #groups a')].filter((e) => e.checkVisibility()).every((e) => e.getBoundingClientRect().height >= 24)`,
	} {
		if !eval[bool](p, "Boolean("+expression+")") {
			t.Errorf("%s: not so", what)
		}
	}
}
