package wait

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// Instance provides the open endpoints. Its methods are safe for concurrent use.
type Instance interface {
	// Await returns the open endpoints of a target as soon as the count of containers has one.
	// After the timeout it returns [ErrTimeout]; with a timeout of 0 it reads once.
	Await(ctx context.Context, t Target, o Options) ([]model.Open, error)
	// Containers returns the running containers that a target selects.
	Containers(ctx context.Context, t Target) ([]Container, error)
	// Running returns the names of all running containers.
	Running(ctx context.Context) ([]string, error)
}

// ErrTimeout means that nothing was open at a target in time.
var ErrTimeout = errors.New("nothing was open in time")

// Container is a running container with its open endpoints.
type Container struct {
	Name      string
	Monitored bool
	Open      []model.Open
}

// Options are the arguments of [Run].
type Options struct {
	Timeout time.Duration
	// Exposures are those that count; none means all.
	Exposures []model.Exposure
	// Count is in how many containers each target has to be open.
	Count model.Count
	// Output receives a line for each target when it is open; nil prints nothing.
	Output io.Writer
}

// explainTime bounds the requests for what is open instead.
const explainTime = 5 * time.Second

// Run waits for all targets and returns nil when each was open. Otherwise the error has a line
// for each that was not, which names what is open there instead.
func Run(ctx context.Context, instance Instance, targets []Target, o Options) error {
	failures := make([]error, len(targets))
	var waiting sync.WaitGroup
	var printing sync.Mutex
	for i, t := range targets {
		waiting.Go(func() {
			open, err := instance.Await(ctx, t, o)
			if err != nil {
				failures[i] = explain(ctx, instance, t, o, err)
				return
			}
			if o.Output == nil {
				return
			}
			printing.Lock()
			defer printing.Unlock()
			if _, err := fmt.Fprintln(o.Output, openLine(t, open)); err != nil {
				failures[i] = fmt.Errorf("write that %s is open: %w", t, err)
			}
		})
	}
	waiting.Wait()
	return errors.Join(failures...)
}

// openLine names the endpoints of a target.
func openLine(t Target, open []model.Open) string {
	var places []string
	for _, o := range open {
		place := fmt.Sprintf("%d/%s on %s", o.Port, o.Protocol, o.Address)
		if o.Container != nil && o.Container.Name != t.Container {
			place += " in " + o.Container.Name
		}
		if len(o.Published) > 0 {
			place += " published at " + strings.Join(o.Published, ", ")
		}
		if place = output.Printable(place); !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return t.String() + " is open: " + strings.Join(most(places), "; ")
}

// maxListed bounds the lists in messages.
const maxListed = 10

func most(list []string) []string {
	if len(list) <= maxListed {
		return list
	}
	return append(slices.Clip(list[:maxListed]), fmt.Sprintf("and %d more", len(list)-maxListed))
}

// explain completes the error for a target that was not open.
func explain(ctx context.Context, instance Instance, t Target, o Options, failed error) error {
	if !errors.Is(failed, ErrTimeout) {
		return fmt.Errorf("wait for %s: %w", t, failed)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	what := "is not open"
	if len(o.Exposures) > 0 {
		what = fmt.Sprintf("is not open as %s", joined(o.Exposures))
	}
	switch {
	case o.Count == model.EveryContainer:
		what += " in all running containers"
	case o.Count > 1:
		what += fmt.Sprintf(" in %s containers", o.Count)
	}
	if o.Timeout > 0 {
		what += fmt.Sprintf(" after %s", o.Timeout)
	}
	containers, err := instance.Containers(ctx, t)
	if err != nil {
		return fmt.Errorf("%s %s; what is open instead cannot be read: %w", t, what, err)
	}
	if len(containers) > 0 {
		return &timeoutError{fmt.Sprintf("%s %s: %s", t, what, instead(containers))}
	}
	if t.Host() { // no list of containers helps
		return &timeoutError{fmt.Sprintf("%s %s", t, what)}
	}
	running, err := instance.Running(ctx)
	if err != nil {
		return fmt.Errorf("%s %s; the running containers cannot be read: %w", t, what, err)
	}
	return &timeoutError{fmt.Sprintf("%s %s: no running container matches %s; %s", t, what, t.Container, near(t.Container, running))}
}

// timeoutError is an [ErrTimeout] with an explanation.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }

func (e *timeoutError) Unwrap() error { return ErrTimeout }

// near names the running containers that may have been meant: those with a part of the name, or
// else all.
func near(name string, running []string) string {
	if len(running) == 0 {
		return "none is running"
	}
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	close := slices.DeleteFunc(slices.Clone(running), func(one string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(strings.ToLower(one), part) })
	})
	which := "the nearest"
	if len(close) == 0 {
		which, close = "running", running
	}
	slices.Sort(close)
	for i := range close {
		close[i] = output.Printable(close[i])
	}
	return which + ": " + strings.Join(most(close), ", ")
}

func instead(containers []Container) string {
	var lines []string
	for _, c := range containers {
		lines = append(lines, output.Printable(c.Name)+" "+openThere(&c))
	}
	return strings.Join(most(lines), ", ")
}

func openThere(c *Container) string {
	switch {
	case !c.Monitored:
		return "is not monitored"
	case len(c.Open) == 0:
		return "has no port open"
	}
	var ports []string
	for _, o := range c.Open {
		text := fmt.Sprintf("%d/%s (%s)", o.Port, o.Protocol, output.Printable(string(o.Exposure)))
		if !slices.Contains(ports, text) { // of the two wildcards
			ports = append(ports, text)
		}
	}
	return "has open " + strings.Join(most(ports), " ")
}

func joined(exposures []model.Exposure) string {
	words := make([]string, len(exposures))
	for i, e := range exposures {
		words[i] = string(e)
	}
	return strings.Join(words, " or ")
}
