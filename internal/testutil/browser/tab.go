package browser

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Tab is a page of its own.
type Tab struct {
	ctx context.Context
	end func()

	mu       sync.Mutex
	problems []string
	failed   []string
}

// Open opens a tab of 1280 by 900 pixels, in UTC. Each document that it loads runs the script
// first; it may be empty.
func (b *Browser) Open(script string) (*Tab, error) {
	ctx, end := chromedp.NewContext(b.ctx)
	t := &Tab{ctx: ctx, end: end}
	if err := t.prepare(script); err != nil {
		end()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	return t, nil
}

const policyScript = `
	addEventListener('securitypolicyviolation', (e) => console.error('security policy: ' + e.violatedDirective + ' ' + e.blockedURI));
`

func (t *Tab) prepare(script string) error {
	// The first call creates the tab, which ends with the call's context; so it has no deadline.
	if err := chromedp.Listen(t.ctx, t.listen); err != nil {
		return err
	}
	if err := call(t, cdplog.Enable, cdp.Empty{}); err != nil {
		return err
	}
	if err := t.Resize(1280, 900); err != nil {
		return err
	}
	if err := call(t, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "UTC"}); err != nil {
		return err
	}
	return call(t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: policyScript + script})
}

// Close closes the tab.
func (t *Tab) Close() { t.end() }

// Resize sets the size in pixels. A tab less than 600 pixels wide is that of a telephone.
func (t *Tab) Resize(width, height int) error {
	return call(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(width), Height: int64(height), DeviceScaleFactor: 1, Mobile: width < 600})
}

// Scheme sets the preferred colours, dark or light.
func (t *Tab) Scheme(dark bool) error {
	value := "light"
	if dark {
		value = "dark"
	}
	return call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}}})
}

// Screenshot returns the tab as a PNG picture.
func (t *Tab) Screenshot() ([]byte, error) {
	return run(t, "take a screenshot", chromedp.CaptureScreenshot())
}

// Problems returns what the page has reported so far: exceptions, errors and warnings on the
// console, violations of the security policy. It leaves out failed requests, which tests cause.
func (t *Tab) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.problems)
}

// Forget drops the problems so far, which the test has caused.
func (t *Tab) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problems = nil
}

// Failed returns the requests that were refused or failed so far, each with the browser's reason
// and its address.
func (t *Tab) Failed() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.failed)
}

func (t *Tab) listen(message any) {
	var problem, failed string
	switch m := message.(type) {
	case *runtime.EventExceptionThrown:
		problem = m.ExceptionDetails.Text
		if m.ExceptionDetails.Exception != nil {
			problem += " " + m.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if m.Type == runtime.ConsoleAPICalledTypeError || m.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, argument := range m.Args {
				problem += fmt.Sprintf("%s%s ", argument.Value, argument.Description)
			}
		}
	case *cdplog.EventEntryAdded:
		switch {
		case m.Entry.Source == cdplog.EntrySourceNetwork:
			failed = m.Entry.Text + " " + m.Entry.URL
		case m.Entry.Level == cdplog.EntryLevelError:
			problem = m.Entry.Text
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if problem != "" {
		t.problems = append(t.problems, problem)
	}
	if failed != "" {
		t.failed = append(t.failed, failed)
	}
}

// call sends a command of the DevTools protocol and ignores its result.
func call[P, R any](t *Tab, command cdp.Command[P, R], params P) error {
	ctx, end := context.WithTimeout(t.ctx, Patience)
	defer end()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		return fmt.Errorf("in the browser: %w", err)
	}
	return nil
}

// run runs an action; what is its name in errors.
func run[T any](t *Tab, what string, action chromedp.Action[T]) (T, error) {
	ctx, end := context.WithTimeout(t.ctx, Patience)
	defer end()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		return value, fmt.Errorf("in the browser: %s: %w", what, err)
	}
	return value, nil
}
