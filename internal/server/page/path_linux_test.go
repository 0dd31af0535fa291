package page

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

// behindProxy returns the address of a reverse proxy that serves the fake under a path.
func behindProxy(t *testing.T, f *fake, path string) string {
	t.Helper()
	target, err := url.Parse(f.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	mux := http.NewServeMux()
	mux.Handle(path, http.StripPrefix(strings.TrimSuffix(path, "/"), forward))
	proxy := httptest.NewServer(mux)
	t.Cleanup(proxy.Close)
	return proxy.URL + path
}

// A proxy may serve page and API under a path: login, lists, stream, details and history work.
func TestBehindAProxyUnderAPath(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "web", Image: "nginx:1.27"})
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by("nginx", 17)))
	f.set(func() { f.token = "s3cret" })
	at := behindProxy(t, f, "/pw/")
	p := newTab(t, 1280, 900)
	p.visit(at)
	p.wait("document.querySelector('#login').open && document.activeElement.id === 'token'")
	p.keys("s3cret\r")
	p.waitText(row, "nginx (17)")
	p.waitText("#connection", "live")
	f.emit(event(model.Opened, web, "0.0.0.0", 81))
	p.waitText("#groups", "81/tcp")
	where := func(want string) {
		t.Helper()
		if got := eval[string](p, "location.href"); got != at+want {
			t.Errorf("the address is %s, want %s", got, at+want)
		}
	}
	p.click(row + " a")
	p.waitText("#detail .history", "That is all that was kept.")
	where("?container=web&port=80/tcp")
	p.shoot("under-a-path")
	p.click("#detail .close")
	p.wait("!document.querySelector('#detail').open")
	where("")
	eval[bool](p, "document.querySelector('#q').focus(), true")
	p.keys("81")
	p.wait("location.search === '?q=81'")
	p.click("#clear")
	p.wait("location.search === ''")
	where("")
	// By its own address.
	p.visit(at + "?container=web&port=81/tcp")
	p.waitText("#detail .intervals", "open now")
	if failed := p.tab.Failed(); len(failed) > 0 && !strings.Contains(strings.Join(failed, ""), "ERR_ABORTED") {
		t.Logf("failed requests: %q", failed)
	}
}

// Direction marks and controls in names are shown, and change nothing around them: a pid keeps the
// order of its digits.
func TestMarksInNamesAreShown(t *testing.T) {
	f := newFake(t)
	evil := "a\u202ecod\u009b.exe\u200b"
	web := f.add(container{Name: "web", Image: evil, Project: "pro\u202eject", Service: evil})
	hebrew := f.add(container{Name: "db", Image: "שלום:1", Service: "שלום"})
	f.emit(event(model.Opened, web, "0.0.0.0", 80, by(evil, 17766)), event(model.Opened, hebrew, "0.0.0.0", 81, by("שלום", 17766)))
	p := newTab(t, 1280, 900)
	p.live(f, "/?container=web&port=80/tcp")
	const shown = `a\u202ecod\u009b.exe\u200b`
	p.waitText("#detail .processes", shown)
	p.waitText(row+" .process", "(17766)")
	p.waitText("#groups h2", `pro\u202eject`)
	p.waitText("#groups h3 .facts", shown)
	p.waitText("#events", shown+" (17766)")
	p.shoot("marks")
	// Neither a text nor a title has a raw mark but the isolates.
	raw := eval[string](p, `[...document.querySelectorAll('body *')].flatMap((e) => [...e.attributes].map((a) => a.value).concat([...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data)))
		.filter((text) => /[\u0080-\u009f\u200b\u202a-\u202e]/.test(text)).join('|')`)
	if raw != "" {
		t.Errorf("a raw mark is in %q", raw)
	}
	// The digits stand from left to right, after the name.
	p.live(f, "/")
	for _, name := range []string{shown, "\u2068שלום\u2069"} {
		order := eval[string](p, `(() => {
			const cell = [...document.querySelectorAll('#groups td.process')].find((e) => e.textContent.includes(`+"`"+strings.ReplaceAll(name, `\`, `\\`)+"`"+`));
			const node = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT).nextNode();
			const at = node.data.indexOf('17766');
			const left = (i) => { const range = document.createRange(); range.setStart(node, i); range.setEnd(node, i + 1); return range.getBoundingClientRect().left; };
			const places = [0, 1, 2, 3, 4].map((i) => left(at + i));
			return String(places.every((x, i) => i === 0 || x > places[i - 1]) && places[0] > left(at - 4));
		})()`)
		if order != "true" {
			t.Errorf("%q: the digits of the pid are not in order: %s", name, order)
		}
	}
}

// The details of a container that was renamed have its events under the earlier name too.
func TestHistoryOfARenamedContainer(t *testing.T) {
	f := newFake(t)
	web := f.add(container{Name: "shop-web-1"})
	before := web
	before.Name = "249662c60a09_shop-web-1"
	other := f.add(container{Name: "other"})
	f.emit(event(model.Opened, before, "0.0.0.0", 80), event(model.Opened, other, "0.0.0.0", 82), event(model.Opened, before, "0.0.0.0", 81))
	p := newTab(t, 1280, 900)
	p.live(f, "/?container=shop-web-1")
	p.waitText("#detail .history", "That is all that was kept.")
	p.wait("document.querySelectorAll('#detail .events li').length === 2")
	f.emit(event(model.Closed, web, "0.0.0.0", 80))
	p.wait("document.querySelectorAll('#detail .events li').length === 3")
}
