package page

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"portwatcher/internal/testutil/browser"
	"portwatcher/internal/testutil/kernel"
)

// shared is the one Chromium of all tests of the package.
var shared struct {
	once    sync.Once
	browser *browser.Browser
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.browser != nil {
		shared.browser.Close()
	}
	os.Exit(code)
}

// tab is a page of its own, which fails its test for every step that fails, and
// for every error that the page reports: exceptions, console errors, breaches of
// the security policy.
type tab struct {
	t   testing.TB
	tab *browser.Tab
}

func newTab(t testing.TB, width, height int) *tab {
	t.Helper()
	path, err := browser.Path()
	if err != nil {
		kernel.Skip(t, err.Error())
	}
	shared.once.Do(func() { shared.browser, shared.err = browser.Start(path) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	opened, err := shared.browser.Open("")
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{t, opened}
	t.Cleanup(p.end)
	p.must(opened.Resize(width, height))
	return p
}

// end closes the tab, and reports what is wrong with the test.
func (p *tab) end() {
	if p.t.Failed() {
		p.shoot("failed-" + strings.ReplaceAll(p.t.Name(), "/", "-"))
	}
	p.tab.Close()
	for _, problem := range p.tab.Problems() {
		p.t.Errorf("the page reported: %s", problem)
	}
	if p.t.Failed() {
		p.t.Logf("failed requests: %q", p.tab.Failed())
	}
}

func (p *tab) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// visit opens a page and waits until its modules run.
func (p *tab) visit(url string) {
	p.t.Helper()
	p.must(p.tab.Visit(url, "document.querySelector('#protocol')?.options.length > 0"))
}

// live opens a page and waits until it shows the state.
func (p *tab) live(f *fake, path string) {
	p.t.Helper()
	p.visit(f.url(path))
	p.wait("document.querySelector('#connection').dataset.state === 'live' && document.querySelector('main').ariaBusy === 'false'")
}

// eval returns the value of a JavaScript expression; a promise is awaited.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	value, err := browser.Eval[T](p.tab, expression)
	p.must(err)
	return value
}

// wait waits until the expression is true.
func (p *tab) wait(expression string) {
	p.t.Helper()
	p.must(p.tab.Wait(expression))
}

// waitText waits until the first element that the selector finds has the text
// in it.
func (p *tab) waitText(selector, text string) {
	p.t.Helper()
	p.must(p.tab.WaitText(selector, text))
}

// text is the text of the first element that the selector finds.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? '(nothing)'", selector))
}

// keys types text, and press one key: see [browser.Tab.Press] for the
// difference.
func (p *tab) keys(text string) { p.t.Helper(); p.must(p.tab.Keys(text)) }
func (p *tab) press(key string) { p.t.Helper(); p.must(p.tab.Press(key)) }

func (p *tab) click(selector string) { p.t.Helper(); p.must(p.tab.Click(selector)) }
func (p *tab) scheme(dark bool)      { p.t.Helper(); p.must(p.tab.Scheme(dark)) }

// shoot writes what the tab shows to <name>.png in the folder that
// PORTWATCHER_SCREENSHOTS names, if it names one.
func (p *tab) shoot(name string) {
	p.t.Helper()
	folder := os.Getenv("PORTWATCHER_SCREENSHOTS")
	if folder == "" {
		return
	}
	// A test that failed for its deadline has a picture too.
	picture, err := p.tab.Screenshot()
	if err != nil {
		p.t.Log(err)
		return
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		p.t.Errorf("PORTWATCHER_SCREENSHOTS: %v", err)
	}
}
