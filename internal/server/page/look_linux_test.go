package page

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

// shop is a small host.
func shop(f *fake) (web, cache, old container) {
	http80 := []declared{{Protocol: "tcp", Port: 80, Published: []string{"0.0.0.0:8080", "[::]:8080"}, Exposed: true}}
	web = f.add(container{Name: "shop_web_1", Image: "nginx:1.27", Project: "shop", Service: "web", Declared: http80, Addresses: []string{"172.18.0.2"}, Namespace: "net:[4026532201]", Source: "ebpf"})
	cache = f.add(container{Name: "shop_redis_1", Image: "redis:7.4", Project: "shop", Service: "redis", Declared: []declared{{Protocol: "tcp", Port: 6379, Exposed: true}}})
	database := f.add(container{Name: "shop_db_1", Image: "postgres:16", Project: "shop", Service: "db", Declared: []declared{{Protocol: "tcp", Port: 5432, Exposed: true, Published: []string{"127.0.0.1:5432"}}}})
	worker := f.add(container{Name: "shop_worker_1", Image: "registry.example.com/team/shop-worker:2026.11.3", Project: "shop", Service: "worker"})
	blog := f.add(container{Name: "blog_ghost_1", Image: "ghost:5", Project: "blog", Service: "ghost", Declared: []declared{{Protocol: "tcp", Port: 2368, Exposed: true}}})
	old = f.add(container{Name: "blog_admin_1", Image: "php:8-apache", Project: "blog", Service: "admin", Declared: []declared{
		{Protocol: "tcp", Port: 80, Exposed: true, Published: []string{"0.0.0.0:8081", "[::]:8081"}}, {Protocol: "tcp", Port: 443, Exposed: true}}})
	agent := f.add(container{Name: "node-exporter", Image: "prom/node-exporter:v1.8.2", NetworkMode: "host", Declared: []declared{{Protocol: "tcp", Port: 9100, Exposed: true}}})
	several := []uint16{20000, 20001, 20002, 20911}
	burst := event(model.Bursts, worker, "127.0.0.1", 0, ago(6*time.Minute), by("storm", 5120), func(e *model.Event) {
		e.Exposure = ""
		e.Burst = &model.Burst{Opened: 31245, Closed: 31244, First: e.Time.Add(-time.Second), Last: e.Time, Ports: several, PortCount: 912}
	})
	host := func(e *model.Event) { e.Exposure = model.Host }
	udp := func(e *model.Event) { e.Protocol = model.UDP }
	transient := func(e *model.Event) { e.Transient = true }
	f.emit(
		event(model.Opened, database, "0.0.0.0", 5432, ago(99*time.Hour), by("postgres", 2210), published("127.0.0.1:5432")),
		event(model.Opened, database, "::", 5432, ago(99*time.Hour), by("postgres", 2210)),
		event(model.Opened, agent, "::", 9100, ago(98*time.Hour), by("node_exporter", 998), host),
		event(model.Opened, cache, "0.0.0.0", 6379, ago(26*time.Hour), by("redis-server", 2304)),
		event(model.Opened, cache, "::", 6379, ago(26*time.Hour), by("redis-server", 2304)),
		event(model.Opened, old, "0.0.0.0", 80, ago(25*time.Hour), by("apache2", 2455), published("0.0.0.0:8081", "[::]:8081")),
		event(model.Opened, blog, "0.0.0.0", 2368, ago(3*time.Hour), by("node", 3120)),
		event(model.Opened, blog, "127.0.0.1", 9229, ago(3*time.Hour), by("node", 3120)),
		event(model.Opened, web, "0.0.0.0", 80, ago(125*time.Minute), by("nginx", 1827), by("nginx", 1840), by("nginx", 1841), published("0.0.0.0:8080", "[::]:8080")),
		event(model.Opened, web, "::", 80, ago(125*time.Minute), by("nginx", 1827), by("nginx", 1840), published("[::]:8080")),
		event(model.Opened, web, "0.0.0.0", 9000, ago(20*time.Minute), by("php-fpm8.2", 1902)),
		event(model.Opened, cache, "172.18.0.3", 40123, ago(14*time.Minute), udp, by("redis-server", 2304)),
		model.Event{Type: model.Gap, Time: time.Now().UTC().Add(-9 * time.Minute), Reason: "217 destroy notifications were lost: the receive buffer overflowed"},
		event(model.Closed, old, "0.0.0.0", 80, ago(7*time.Minute), by("apache2", 2455), published("0.0.0.0:8081", "[::]:8081")),
		burst,
		model.Event{Type: model.Gap, Time: time.Now().UTC().Add(-5 * time.Minute), Listener: burst.Listener, Reason: "more happened than was read in time", Lost: 128},
		event(model.Opened, blog, "127.0.0.1", 43111, ago(4*time.Minute), transient, by("curl", 4100)),
		event(model.Closed, blog, "127.0.0.1", 43111, ago(4*time.Minute), transient, by("curl", 4100), func(e *model.Event) { e.OpenSeconds = new(0.0123) }),
		event(model.Changed, web, "0.0.0.0", 9000, ago(90*time.Second), by("php-fpm8.2", 4410)),
		event(model.Opened, web, "127.0.0.1", 9001, ago(12*time.Second), by("supervisord", 4421)),
	)
	return web, cache, old
}

// TestLooks shows the page as people have it: in light and dark, wide and
// narrow, the lists and the details. It checks what can be checked of appearance
// without eyes; PORTWATCHER_SCREENSHOTS=folder keeps the pictures for those.
func TestLooks(t *testing.T) {
	f := newFake(t)
	shop(f)
	for _, size := range []struct {
		name          string
		width, height int
	}{{"wide", 1280, 900}, {"narrow", 390, 800}, {"least", 360, 640}} {
		p := newTab(t, size.width, size.height)
		for _, dark := range []bool{false, true} {
			name := size.name + map[bool]string{true: "-dark", false: "-light"}[dark]
			p.scheme(dark)
			for view, path := range map[string]string{"": "/", "-events": "/?view=events", "-container": "/?container=shop_web_1", "-port": "/?container=shop_web_1&port=9000/tcp"} {
				p.live(f, path)
				p.wait("document.querySelectorAll('#events li').length > 5 && (!location.search.includes('container') || document.querySelectorAll('#detail li').length)")
				p.shoot(name + view)
				if wide := eval[int](p, "document.documentElement.scrollWidth"); wide > size.width {
					t.Errorf("%s%s: the page is %d pixels wide on a screen of %d", name, view, wide, size.width)
				}
				if small := eval[string](p, illegible); small != "" {
					t.Errorf("%s%s: too little contrast: %s", name, view, small)
				}
			}
		}
	}
}

// illegible names the first text whose contrast with its background is below
// 4.5, as WCAG 2 (1.4.3) asks for. Disabled controls are excepted there.
const illegible = `(() => {
	const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
	const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
	const root = document.querySelector('dialog[open]') ?? document.body;
	for (const e of root.querySelectorAll('*')) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.closest(':disabled, .hidden, .skip, tr[data-fresh]') || !e.checkVisibility({ contentVisibilityAuto: true })) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
		const contrast = (a + 0.05) / (b + 0.05);
		if (contrast < 4.5) return e.className + ' "' + e.textContent.slice(0, 40) + '" has ' + contrast.toFixed(2);
	}
	return '';
})()`
