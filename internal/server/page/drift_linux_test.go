package page

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

// drifting makes a drift of an event.
func drifting(e model.Event, change func(*model.DriftPeriod)) model.DriftPeriod {
	d := model.DriftPeriod{OpenDrift: model.OpenDrift{
		Drift: e.Drift, Since: time.Now().Add(-10 * time.Minute).UTC(), Target: e.Container.Target(), Listener: e.Listener, Endpoints: 1,
		Entry: "  - target: " + e.Container.Target() + "\n    port: 1/tcp\n",
	}}
	if change != nil {
		change(&d)
	}
	return d
}

func TestDrift(t *testing.T) {
	f := newFake(t)
	web, cache, _ := shop(f)
	p := newTab(t, 1280, 900)
	p.live(f, "/?view=drift")
	p.waitText("#drift-none", "Nothing is expected")
	f.set(func() { f.expecting = true })
	p.live(f, "/?view=drift")
	p.waitText("#drift-none", "What is open is as expected.")
	if eval[bool](p, "document.querySelector('main').checkVisibility()") || !eval[bool](p, "document.querySelector('#timeline').checkVisibility()") {
		t.Error("the list of ports is shown beside the drifts, or the events are not")
	}

	opened := event(model.Opened, web, "0.0.0.0", 4444, by("nc", 4600), func(e *model.Event) { e.Drift = model.DriftUnexpected })
	wider := event(model.Drifted, cache, "0.0.0.0", 6379, by("redis-server", 2304), func(e *model.Event) {
		e.Drift, e.Expected, e.Reason = model.DriftWider, "at most loopback", "the expectations have changed"
	})
	missing := model.Event{Type: model.Drifted, Drift: model.DriftMissing, Expected: "open", Reason: "not open for 30s", Listener: model.Listener{
		Container: &model.ContainerRef{Name: "shop/mail", Project: "shop", Service: "mail"}, Protocol: model.TCP, Port: 25,
	}}
	f.set(func() {
		f.drifts = []model.DriftPeriod{
			drifting(opened, nil), drifting(wider, func(d *model.DriftPeriod) { d.Expected, d.Endpoints = "at most loopback", 2 }),
			drifting(missing, func(d *model.DriftPeriod) { d.Expected, d.Endpoints, d.Entry = "open", 0, "" }),
			drifting(opened, func(d *model.DriftPeriod) { d.Port, d.Ended = 5555, time.Now().UTC() }),
		}
	})
	f.emit(opened, wider, missing)
	p.wait("document.querySelectorAll('#drifts li').length === 3")
	p.waitText("#drift-count", "3")
	p.wait(`[...document.querySelectorAll('#drifts .subject')].map((e) => e.textContent).join(', ') === 'shop/web 4444/tcp, shop/redis 6379/tcp, shop/mail 25/tcp'`)
	p.waitText("#drifts", "at most loopback")
	p.waitText("#drifts pre", "  - target: shop/web\n    port: 1/tcp")
	if n := eval[int](p, "document.querySelectorAll('#drifts pre').length"); n != 2 {
		t.Errorf("%d drifts have lines to add; want 2, because that of the missing port is there", n)
	}
	p.click("#drifts .entry button")
	p.wait("/Copied|Selected/.test(document.querySelector('#drifts .entry p').textContent)")
	p.waitText("#events li.drift .how", "not open for 30s")
	p.waitText("#events li.opened .drift", "unexpected")
	if broken := eval[string](p, illegible); broken != "" {
		t.Errorf("too little contrast: %s", broken)
	}
	p.shoot("drift")
	p.scheme(true)
	if broken := eval[string](p, illegible); broken != "" {
		t.Errorf("too little contrast in the dark: %s", broken)
	}
	p.shoot("drift-dark")
	p.scheme(false)

	p.click("#drift-past")
	p.waitText("#drifts-past", "shop/web 5555/tcp")
	p.click("#q")
	p.keys("redis")
	p.wait("document.querySelectorAll('#drifts li').length === 1")
	p.click("#clear")

	// The lists mark them, and filter by them.
	p.click(".views [data-view=ports]")
	p.waitText("[data-counter=drifting]", "2")
	p.click("[data-counter=drifting]")
	p.wait("location.search === '?state=drifting'")
	p.wait(shown + " === 'shop_redis_1 6379/tcp, shop_web_1 4444/tcp'")
	// What ends is not marked any more.
	ended := wider
	ended.Ended = true
	f.set(func() { f.drifts = f.drifts[:1] })
	f.emit(ended)
	p.wait(shown + " === 'shop_web_1 4444/tcp'")
	p.click(".views [data-view=drift]")
	p.wait("document.querySelectorAll('#drifts li').length === 1")
}

// A narrow page has one view at a time.
func TestDriftOnANarrowPage(t *testing.T) {
	f := newFake(t)
	web, _, _ := shop(f)
	f.set(func() {
		f.expecting = true
		f.drifts = []model.DriftPeriod{drifting(event(model.Opened, web, "0.0.0.0", 4444, func(e *model.Event) { e.Drift = model.DriftUnexpected }), nil)}
	})
	p := newTab(t, 390, 800)
	p.live(f, "/")
	p.click(".views [data-view=drift]")
	p.wait("location.search === '?view=drift' && document.querySelectorAll('#drifts li').length === 1")
	for _, other := range []string{"main", "#timeline"} {
		if eval[bool](p, "document.querySelector('"+other+"').checkVisibility()") {
			t.Errorf("%s is shown beside the drifts", other)
		}
	}
	if wide := eval[bool](p, "document.documentElement.scrollWidth > innerWidth"); wide {
		t.Error("the page is wider than the screen")
	}
	p.shoot("drift-narrow")
}
