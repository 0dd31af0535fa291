package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/testutil/browser"
)

// page is a tab of a real browser with the page in it.
type page struct {
	t *testing.T
	*browser.Tab
}

// openPage starts a browser and opens the page in it. The test fails if the page
// reports an error or a breach of its security policy.
func openPage(t *testing.T, url string) *page {
	t.Helper()
	path, err := browser.Path()
	if err != nil {
		harness.Unavailable(t, err.Error())
	}
	chromium, err := browser.Start(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chromium.Close)
	tab, err := chromium.Open("")
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t, tab}
	t.Cleanup(func() {
		for _, problem := range p.Problems() {
			t.Errorf("the page reported: %s", problem)
		}
		if t.Failed() {
			shown, err := browser.Eval[string](tab, "document.body.innerText")
			t.Logf("the page shows: %s %v", shown, err)
		}
	})
	p.must(p.Visit(url, "document.querySelector('#protocol')?.options.length > 0"))
	return p
}

func (p *page) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// shows waits until a port of the container is in the list in this state, with
// the texts in its row.
func (p *page) shows(container *harness.Container, state string, texts ...string) {
	p.t.Helper()
	p.must(p.Wait(fmt.Sprintf(`[...document.querySelectorAll('#groups tbody tr[data-state=%s]')].some((row) =>
		%s.every((text) => row.innerText.includes(text)) && row.closest('section.container').querySelector('h3').innerText.includes(%q))`,
		state, quoted(texts), container.Name)))
}

// lists waits until the time line has an event with all of the texts.
func (p *page) lists(texts ...string) {
	p.t.Helper()
	p.must(p.Wait(fmt.Sprintf(`[...document.querySelectorAll('#events li')].some((event) => %s.every((text) => event.textContent.replace(/\s+/g, ' ').includes(text)))`, quoted(texts))))
}

// quoted is texts as a list of JavaScript.
func quoted(texts []string) string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = fmt.Sprintf("%q", text)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// The page of a real portwatcher shows what opens and closes in a real
// container; while portwatcher is away it shows that, and then what happened
// meanwhile, in the same document.
func TestWebPage(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 1, []string{"--publish", "80", "--publish", "443"}, "--tcp", "0.0.0.0:80")
	first := serve(t, serving{})
	first.WaitOpen(t, listening(t, web, 1))
	p := openPage(t, first.url+"/")
	p.must(p.WaitText("#connection", "live"))
	published := listening(t, web, 1)[0].Published
	_, port, _ := strings.Cut(published[0], ":")
	p.shows(web, "open", "80/tcp", "workload", "published", ":"+port)
	p.shows(web, "silent", "443/tcp", "published, nobody listens")
	if _, err := browser.Eval[bool](p.Tab, "window.sameDocument = true"); err != nil {
		t.Fatal(err)
	}

	service := web.Exec(t, "listen", "--tcp", "0.0.0.0:4321")
	p.shows(web, "open", "4321/tcp", "workload", "not declared")
	p.lists("opened", web.Name+" 4321/tcp")
	service.Stop(t)
	p.shows(web, "closed", "4321/tcp")
	p.lists("closed", web.Name+" 4321/tcp")
	stays := web.Exec(t, "listen", "--tcp", "0.0.0.0:4322")
	p.shows(web, "open", "4322/tcp")
	first.Stop(t, syscall.SIGTERM)
	p.must(p.WaitText("#connection", "server away since"))
	p.must(p.Wait("document.title.startsWith('(not live)')"))

	stays.Stop(t)
	web.Exec(t, "listen", "--udp", "0.0.0.0:4323")
	second := first.again(t)
	second.WaitOpen(t, listening(t, web, 2))
	p.must(p.Wait("document.querySelector('#connection').dataset.state === 'live'"))
	p.shows(web, "open", "4323/udp", "workload")
	p.lists("opened", web.Name+" 4323/udp", "while away")
	p.lists("closed", web.Name+" 4322/tcp", "while away")
	p.must(p.Wait("!document.querySelector('#groups').innerText.includes('4322/tcp')"))
	second.Marker(t, web, 4324) // and on it goes
	p.lists("closed", web.Name+" 4324/tcp")
	if same, err := browser.Eval[bool](p.Tab, "window.sameDocument === true"); err != nil || !same {
		t.Errorf("the page was loaded anew: %v", err)
	}
	// Each event once, in order, as portwatcher printed them.
	var want []string
	for _, line := range slices.Concat(first.Lines(), second.Lines()) {
		want = append(want, string(harness.ParseEvent(t, line).Type))
	}
	slices.Reverse(want)
	p.must(p.Wait(fmt.Sprintf("[...document.querySelectorAll('#events .type')].map((e) => e.textContent).join(' ') === %q", strings.Join(want, " "))))
}

// The page asks for the token, refuses a wrong one, and asks again when it was
// replaced.
func TestWebPageToken(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "first-token\n")
	i := serve(t, serving{more: []string{"--token-file", file}})
	i.WaitOpen(t, listening(t, web, 1))
	p := openPage(t, i.url+"/")
	const asks = "document.querySelector('#login').open && document.activeElement.id === 'token'"
	p.must(p.Wait(asks))
	if shown, err := browser.Eval[bool](p.Tab, fmt.Sprintf("document.body.innerText.includes(%q)", web.Name)); err != nil || shown {
		t.Errorf("a container is shown before the token is known: %v", err)
	}
	p.must(p.Keys("wrong\r"))
	p.must(p.WaitText("#login-error", "not accepted"))
	p.must(p.Wait(asks))
	p.must(p.Keys("first-token\r"))
	p.shows(web, "open", "80/tcp", "workload")
	p.must(p.WaitText("#connection", "live"))
	web.Exec(t, "listen", "--tcp", "0.0.0.0:81")
	p.shows(web, "open", "81/tcp")
	if leaks, err := browser.Eval[bool](p.Tab, "(location.href + document.cookie + JSON.stringify(localStorage)).includes('token')"); err != nil || leaks {
		t.Errorf("the token is in the address, in a cookie or kept for good: %v", err)
	}
	replace(t, file, []byte("second-token"))
	p.must(p.Wait(asks))
	p.must(p.Keys("second-token\r"))
	web.Exec(t, "listen", "--tcp", "0.0.0.0:82")
	p.shows(web, "open", "82/tcp")
}

// A breach of the security policy is refused by the browser, and noticed by
// these tests.
func TestWebPagePolicy(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	i := serve(t, serving{})
	p := openPage(t, i.url+"/")
	for _, breach := range []string{
		"document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.breached = true' }))",
		"document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:9/' }))",
		"fetch('http://127.0.0.1:9/').catch(() => {})",
	} {
		before := len(p.Problems())
		if _, err := browser.Eval[any](p.Tab, "void ("+breach+")"); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, "the browser reports "+breach, func() string {
			for _, problem := range p.Problems()[before:] {
				if strings.Contains(problem, "security policy") {
					return ""
				}
			}
			return "no breach is reported"
		})
	}
	if breached, err := browser.Eval[bool](p.Tab, "window.breached === true"); err != nil || breached {
		t.Errorf("an inline script ran: %v", err)
	}
	p.Forget()
}
