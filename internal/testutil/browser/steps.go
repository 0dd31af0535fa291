package browser

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

const (
	// waitTime bounds each wait for a content of the page.
	waitTime = 20 * time.Second
	// readyTime is the time after which a page that is not ready is loaded again.
	readyTime = 5 * time.Second
)

// Visit loads a page and waits until the expression ready is true in it. It tries again when that
// fails: a browser cancels its requests whenever a network interface is added or removed
// (ERR_NETWORK_CHANGED), as with each container that starts or ends.
func (t *Tab) Visit(url, ready string) error {
	return until(t.ctx, "the page at "+url+" runs", Patience, func(ctx context.Context) error {
		if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
			return err
		}
		return until(ctx, ready, readyTime, func(ctx context.Context) error { return truth(ctx, ready) })
	})
}

// Back goes back in the tab's history, as the browser's button does.
func (t *Tab) Back() error { return do(t, "go back", chromedp.NavigateBack()) }

// Forward is the opposite of [Tab.Back].
func (t *Tab) Forward() error { return do(t, "go forward", chromedp.NavigateForward()) }

// Eval returns the value of a JavaScript expression; a promise is awaited.
func Eval[T any](t *Tab, expression string) (T, error) {
	return run(t, "evaluate "+expression, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// Wait waits until a JavaScript expression is true. While the page is being loaded it is not.
func (t *Tab) Wait(expression string) error {
	return until(t.ctx, expression, waitTime, func(ctx context.Context) error { return truth(ctx, expression) })
}

// WaitText waits until the first element that the selector finds contains the text.
func (t *Tab) WaitText(selector, text string) error {
	element := fmt.Sprintf("document.querySelector(%q)", selector)
	err := t.Wait(fmt.Sprintf("%s?.innerText.includes(%q)", element, text))
	if err != nil {
		shown, evalErr := Eval[string](t, element+"?.innerText ?? '(no such element)'")
		if evalErr != nil {
			return fmt.Errorf("%w; what it shows cannot be read: %w", err, evalErr)
		}
		return fmt.Errorf("%w; it shows: %s", err, shown)
	}
	return nil
}

func truth(ctx context.Context, expression string) error {
	is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
	if err == nil && !is {
		err = fmt.Errorf("%s is not true", expression)
	}
	return err
}

// Keys types text into the focused element; "\r" is the Enter key. The characters arrive even if
// the page handles the keys.
func (t *Tab) Keys(text string) error {
	return do(t, fmt.Sprintf("type %q", text), chromedp.KeyEvent(text))
}

// Press sends one key as a keyboard does: its character arrives only if the page does not handle
// the key.
func (t *Tab) Press(key string) error {
	down := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key}
	if err := call(t, input.DispatchKeyEvent, down); err != nil {
		return fmt.Errorf("press %q: %w", key, err)
	}
	up := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key}
	if err := call(t, input.DispatchKeyEvent, up); err != nil {
		return fmt.Errorf("release %q: %w", key, err)
	}
	return nil
}

// Click clicks on the first visible element that the selector finds.
func (t *Tab) Click(selector string) error {
	return do(t, "click on "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func do(t *Tab, what string, action chromedp.Action[chromedp.Void]) error {
	_, err := run(t, what, action)
	return err
}

// until calls try until it succeeds. After patience it returns the last error.
func until(ctx context.Context, what string, patience time.Duration, try func(ctx context.Context) error) error {
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // rather than that of the context
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, patience, last)
		case <-time.After(20 * time.Millisecond): // between two tries
		}
	}
}
