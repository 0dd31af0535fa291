package page

import (
	"testing"
	"time"

	"portwatcher/internal/model"
)

// onlineShop is a Compose project as many hosts have one.
func onlineShop(f *fake) {
	declare := func(port int, published ...string) declared {
		return declared{Protocol: "tcp", Port: port, Exposed: true, Published: published}
	}
	add := func(service, image string, ports ...declared) container {
		name := "shop-" + service + "-1"
		return f.add(container{Name: name, Image: image, Project: "shop", Service: service, Declared: ports})
	}
	web := add("web", "nginx:1.27", declare(80, "0.0.0.0:8080", "[::]:8080"))
	api := add("api", "registry.example.com/shop/api:4.2.0", declare(3000))
	db := add("db", "postgres:17", declare(5432, "127.0.0.1:5432"))
	cache := add("cache", "redis:7.4", declare(6379))
	worker := add("worker", "registry.example.com/shop/worker:4.2.0")
	add("admin", "adminer:4", declare(8080, "127.0.0.1:8081"))
	exporter := f.add(container{
		Name: "node-exporter", Image: "prom/node-exporter:v1.8.2", NetworkMode: "host", Declared: []declared{declare(9100)},
	})

	host := func(e *model.Event) { e.Exposure = model.Host }
	// The worker listens for a moment on a port that the kernel chose.
	const held = 52 * time.Millisecond
	short := func(e *model.Event) { e.Transient, e.OpenSeconds = true, new(held.Seconds()) }
	start := func(d time.Duration) func(*model.Event) { return ago(49*time.Hour + d) }
	const restart = 9*time.Minute + 412*time.Millisecond // of api
	f.emit(
		event(model.Opened, exporter, "::", 9100, ago(200*time.Hour), by("node_exporter", 998), host),
		event(model.Opened, db, "0.0.0.0", 5432, start(1170*time.Millisecond), by("postgres", 2210), published("127.0.0.1:5432")),
		event(model.Opened, cache, "0.0.0.0", 6379, start(64*time.Millisecond), by("redis-server", 2304)),
		event(model.Opened, cache, "::", 6379, start(63*time.Millisecond), by("redis-server", 2304)),
		event(model.Opened, web, "0.0.0.0", 80, ago(7563787*time.Millisecond),
			by("nginx", 5942), by("nginx", 5991), by("nginx", 5992), published("0.0.0.0:8080", "[::]:8080")),
		event(model.Opened, worker, "127.0.0.1", 9808, ago(7549236*time.Millisecond), by("python3", 6092)),
		event(model.Opened, worker, "127.0.0.1", 41873, ago(2826103*time.Millisecond), by("python3", 6092), short),
		event(model.Closed, worker, "127.0.0.1", 41873, ago(2826103*time.Millisecond-held), by("python3", 6092), short),
		event(model.Opened, api, "::", 3000, ago(1874350*time.Millisecond), by("node", 7410)),
		event(model.Closed, api, "::", 3000, ago(restart), by("node", 7410)),
		event(model.Opened, api, "::", 3000, ago(restart-1347*time.Millisecond), by("node", 9127)),
		event(model.Opened, api, "0.0.0.0", 9229, ago(restart-1351*time.Millisecond), by("node", 9127)),
		event(model.Opened, worker, "127.0.0.1", 36511, ago(124579*time.Millisecond), by("python3", 6092), short),
		event(model.Closed, worker, "127.0.0.1", 36511, ago(124579*time.Millisecond-held), by("python3", 6092), short),
	)
}

// TestPicture shows the page as docs/page.png has it; `make screenshot` writes that file.
func TestPicture(t *testing.T) {
	f := newFake(t)
	onlineShop(f)
	p := newTab(t, 1280, 760)
	p.live(f, "/")
	p.wait(`document.querySelector('#counters').innerText.replace(/\s+/g, ' ') ===
		'7 containers 7 ports open ↗ 2 reachable from outside 1 published, nobody listens 2 not declared'`)
	p.wait("document.querySelectorAll('#events li').length >= 10")
	if illegible := eval[string](p, illegible); illegible != "" {
		t.Errorf("too little contrast: %s", illegible)
	}
	p.shoot("page")
}
