// Package browser drives a headless Chromium, for the integration tests and
// the benchmark: it opens tabs, asks them by JavaScript, and keeps what they
// report of errors. It knows nothing of portwatcher.
//
// A tab is for one goroutine at a time. Nothing here waits longer than
// [Patience].
package browser

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Patience bounds each wait: longer than any step takes on a busy machine.
const Patience = 30 * time.Second

// Package is Debian's package with the browser.
const Package = "chromium"

// Path returns the path of a Chromium.
func Path() (string, error) {
	names := []string{"chromium", "chromium-browser", "google-chrome-stable", "google-chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no Chromium is installed (looked for %s): apt-get install %s", strings.Join(names, ", "), Package)
}

// Browser is a running Chromium. Its owner closes it.
type Browser struct {
	ctx  context.Context
	ends []func()
}

// Start starts the Chromium at path, without a sandbox: root, which the tests
// run as, has none.
func Start(path string) (*Browser, error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true))
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	b := &Browser{ctx: ctx, ends: []func(){end, endAllocator}}
	if err := chromedp.Do(ctx); err != nil {
		b.Close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return b, nil
}

// Close ends the browser with all its tabs.
func (b *Browser) Close() {
	for _, end := range b.ends {
		end()
	}
}

// Tab is a page of its own.
type Tab struct {
	ctx context.Context
	end func()

	mu       sync.Mutex
	problems []string
}

// Open opens a tab of 1280 by 900 pixels. Each document that it loads runs the
// script first, which may be empty.
func (b *Browser) Open(script string) (*Tab, error) {
	ctx, end := chromedp.NewContext(b.ctx)
	t := &Tab{ctx: ctx, end: end}
	// The first call makes the tab and binds its life to the context, so it is
	// the only one without a deadline.
	err := chromedp.Listen(ctx, t.listen)
	if err == nil {
		err = call(t, cdplog.Enable, cdp.Empty{})
	}
	if err == nil {
		err = call(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1280, Height: 900, DeviceScaleFactor: 1})
	}
	if err == nil {
		err = call(t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: policyScript + script})
	}
	if err != nil {
		end()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return t, nil
}

const policyScript = `
	addEventListener('securitypolicyviolation', (e) => console.error('security policy: ' + e.violatedDirective + ' ' + e.blockedURI));
`

// Close closes the tab.
func (t *Tab) Close() { t.end() }

// Problems returns what the page has reported so far: exceptions, errors and
// warnings on the console, breaches of the security policy. Requests that
// failed are none: tests bring them about.
func (t *Tab) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.problems...)
}

func (t *Tab) listen(message any) {
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
		if m.Entry.Level == cdplog.EntryLevelError && m.Entry.Source != cdplog.EntrySourceNetwork {
			text = m.Entry.Text
		}
	}
	if text != "" {
		t.mu.Lock()
		t.problems = append(t.problems, text)
		t.mu.Unlock()
	}
}

// call sends a command of the DevTools protocol whose result is of no interest.
func call[P, R any](t *Tab, command cdp.Command[P, R], params P) error {
	ctx, end := context.WithTimeout(t.ctx, Patience)
	defer end()
	_, err := chromedp.Call(ctx, command, params)
	return err
}

// Forget drops the problems so far, which were brought about on purpose.
func (t *Tab) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problems = nil
}
