package page

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"portwatcher/internal/kerneltest"
)

// bound is longer than any step of a test takes on a slow machine.
const bound = 30 * time.Second

// browser is the one Chromium of all tests of the package.
var browser struct {
	once  sync.Once
	ctx   context.Context
	close func()
	err   error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.close != nil {
		browser.close()
	}
	os.Exit(code)
}

func chromium() (string, error) {
	names := []string{"chromium", "chromium-browser", "google-chrome-stable", "google-chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no Chromium is installed (looked for %s): apt-get install chromium", strings.Join(names, ", "))
}

func startBrowser(path string) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true))
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	browser.ctx = ctx
	browser.close = func() { end(); endAllocator() }
	browser.err = chromedp.Do(ctx)
}

// tab is a page of its own, which fails its test for every error that the page
// reports: exceptions, console errors, breaches of the security policy.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu      sync.Mutex
	errors  []string
	network []string // failed requests, told when the test fails
}

func newTab(t testing.TB, width, height int) *tab {
	t.Helper()
	path, err := chromium()
	if err != nil {
		kerneltest.Skip(t, err.Error())
	}
	browser.once.Do(func() { startBrowser(path) })
	if browser.err != nil {
		t.Fatalf("start %s: %v", path, browser.err)
	}
	ctx, end := chromedp.NewContext(browser.ctx)
	p := &tab{t: t, ctx: ctx}
	// The first call makes the tab and binds its life to the context, so it is
	// the only one without a deadline.
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	call(p, cdplog.Enable, cdp.Empty{})
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(width), Height: int64(height), DeviceScaleFactor: 1, Mobile: width < 600})
	call(p, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"})
	call(p, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: `
		addEventListener('securitypolicyviolation', (e) => console.error('security policy: ' + e.violatedDirective + ' ' + e.blockedURI))`})
	t.Cleanup(func() {
		if t.Failed() {
			p.shoot("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
		}
		end()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, text := range p.errors {
			t.Errorf("the page reported: %s", text)
		}
		if t.Failed() {
			t.Logf("failed requests: %q", p.network)
		}
	})
	return p
}

func (p *tab) listen(message any) {
	var text string
	switch m := message.(type) {
	case *runtime.EventExceptionThrown:
		text = m.ExceptionDetails.Text
		if m.ExceptionDetails.Exception != nil {
			text += " " + m.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if m.Type == runtime.ConsoleAPICalledTypeError || m.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, argument := range m.Args {
				text += fmt.Sprintf("%s%s ", argument.Value, argument.Description)
			}
		}
	case *cdplog.EventEntryAdded:
		// The browser itself reports refused and failed requests, which tests
		// bring about.
		if m.Entry.Source == cdplog.EntrySourceNetwork {
			p.mu.Lock()
			p.network = append(p.network, m.Entry.Text+" "+m.Entry.URL)
			p.mu.Unlock()
		}
		if m.Entry.Level == cdplog.EntryLevelError && m.Entry.Source != cdplog.EntrySourceNetwork {
			text = m.Entry.Text
		}
	}
	if text != "" {
		p.mu.Lock()
		p.errors = append(p.errors, text)
		p.mu.Unlock()
	}
}

// run does an action within the bound.
func run[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, bound)
	defer end()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// call sends a command of the DevTools protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, bound)
	defer end()
	value, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
	return value
}

// visit opens a page and waits until its modules run. It tries again when that
// fails: a browser gives up its requests whenever a network interface comes or
// goes (ERR_NETWORK_CHANGED), as they do with each container of other tests.
func (p *tab) visit(url string) {
	p.t.Helper()
	kerneltest.Eventually(p.t, "the page at "+url+" runs", func() bool {
		ctx, end := context.WithTimeout(p.ctx, bound)
		defer end()
		if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
			p.t.Logf("%s: %v; trying again", url, err)
			return false
		}
		// Navigate waits for the load event, which modules come before.
		return eval[bool](p, "document.querySelector('#protocol')?.options.length > 0")
	})
}

// eval returns the value of a JavaScript expression; a promise is awaited.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	return run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// wait waits until the expression is true. While the page is being loaded
// anew there is nothing to evaluate it in.
func (p *tab) wait(expression string) {
	p.t.Helper()
	kerneltest.Eventually(p.t, expression, func() bool {
		ctx, end := context.WithTimeout(p.ctx, bound)
		defer end()
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err != nil {
			p.t.Logf("%s: %v", expression, err)
		}
		return err == nil && is
	})
}

// text is the text of the first element that the selector finds.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? '(nothing)'", selector))
}

// waitText waits until the first element that the selector finds has the text
// in it.
func (p *tab) waitText(selector, text string) {
	p.t.Helper()
	p.wait(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

func (p *tab) keys(keys string) {
	p.t.Helper()
	run(p, chromedp.KeyEvent(keys))
}

// press sends one key as a keyboard does: its character comes only if the page
// does not take the key. keys sends the character in any case.
func (p *tab) press(key string) {
	p.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		params := input.DispatchKeyEventParams{Type: kind, Key: key}
		if kind == input.DispatchKeyEventTypeKeyDown {
			params.Text = key
		}
		call(p, input.DispatchKeyEvent, params)
	}
}

func (p *tab) click(selector string) {
	p.t.Helper()
	run(p, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// live opens a page and waits until it shows the state.
func (p *tab) live(f *fake, path string) {
	p.t.Helper()
	p.visit(f.url(path))
	p.wait("document.querySelector('#connection').dataset.state === 'live' && document.querySelector('main').ariaBusy === 'false'")
}

// shoot writes what the tab shows to <name>.png in the folder that
// PORTWATCHER_SCREENSHOTS names, if it names one.
func (p *tab) shoot(name string) {
	p.t.Helper()
	folder := os.Getenv("PORTWATCHER_SCREENSHOTS")
	if folder == "" {
		return
	}
	// A test that failed for its deadline can still be looked at.
	ctx, end := context.WithTimeout(p.ctx, bound)
	defer end()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Logf("screenshot: %v", err)
		return
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644); err != nil {
		p.t.Errorf("PORTWATCHER_SCREENSHOTS: %v", err)
	}
}

func (p *tab) scheme(dark bool) {
	p.t.Helper()
	value := "light"
	if dark {
		value = "dark"
	}
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
}
