// Package browser drives a headless Chromium for tests and for the benchmark: it opens tabs,
// evaluates JavaScript in them, and collects the errors that they report. It is test support
// only: no package of the product imports it, and it imports nothing of portwatcher.
//
// A tab is for one goroutine at a time. Nothing here waits longer than [Patience].
package browser

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
)

// Patience bounds each step, and the loading of a page.
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
	return "", fmt.Errorf("needs a Chromium, and none is installed (%s): apt-get install %s", strings.Join(names, ", "), Package)
}

// Browser is a running Chromium. Its owner closes it.
type Browser struct {
	ctx  context.Context
	ends []func()
}

// Start starts the Chromium at path, without a sandbox, because the tests run as root. Its profile
// is a temporary folder, which Close removes.
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
