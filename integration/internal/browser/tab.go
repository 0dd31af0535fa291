package browser

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/chromedp"
)

// visitTime is how long a page that was loaded has to become ready, before it is
// loaded again.
const visitTime = 5 * time.Second

// Visit loads a page and waits until the expression ready is true in it. It
// tries again when that fails: a browser gives up its requests whenever a
// network interface comes or goes (ERR_NETWORK_CHANGED), as they do with each
// container that starts or ends.
func (t *Tab) Visit(url, ready string) error {
	return t.until("the page at "+url+" runs", Patience, func(ctx context.Context) error {
		if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
			return err
		}
		return t.until(ready, visitTime, func(ctx context.Context) error { return truth(ctx, ready) })
	})
}

// Eval returns the value of a JavaScript expression; a promise is awaited.
func Eval[T any](t *Tab, expression string) (T, error) {
	ctx, end := context.WithTimeout(t.ctx, Patience)
	defer end()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		return value, fmt.Errorf("evaluate %s: %w", expression, err)
	}
	return value, nil
}

// Wait waits until a JavaScript expression is true.
func (t *Tab) Wait(expression string) error {
	return t.until(expression, Patience, func(ctx context.Context) error { return truth(ctx, expression) })
}

// WaitText waits until the first element that the selector finds has the text
// in it.
func (t *Tab) WaitText(selector, text string) error {
	element := fmt.Sprintf("document.querySelector(%q)", selector)
	err := t.Wait(fmt.Sprintf("%s?.innerText.includes(%q)", element, text))
	if err != nil {
		shown, evalErr := Eval[string](t, element+"?.innerText ?? '(no such element)'")
		err = fmt.Errorf("%w; it shows: %s %w", err, shown, evalErr)
	}
	return err
}

func truth(ctx context.Context, expression string) error {
	is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
	if err == nil && !is {
		err = fmt.Errorf("%s is not true", expression)
	}
	return err
}

// Keys types text into what has the focus; "\r" is the Enter key.
func (t *Tab) Keys(text string) error {
	return t.do(chromedp.KeyEvent(text))
}

// Click clicks on the first visible element that the selector finds.
func (t *Tab) Click(selector string) error {
	return t.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (t *Tab) do(action chromedp.Action[chromedp.Void]) error {
	ctx, end := context.WithTimeout(t.ctx, Patience)
	defer end()
	if err := chromedp.Do(ctx, action); err != nil {
		return fmt.Errorf("in the browser: %w", err)
	}
	return nil
}

// until calls try until it succeeds, and returns what it said last where it has
// not in time.
func (t *Tab) until(what string, patience time.Duration, try func(ctx context.Context) error) error {
	ctx, end := context.WithTimeout(t.ctx, patience)
	defer end()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // not that the time is over
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v: %w", what, patience, last)
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
}
