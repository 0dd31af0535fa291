package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/clock"
	"portwatcher/internal/config"
	"portwatcher/internal/expect"
	"portwatcher/internal/filewatch"
)

const (
	// expiryNotice is how long before an entry expires the log warns of it, each day.
	expiryNotice = 7 * 24 * time.Hour
	expiryEvery  = 24 * time.Hour
	// absentInterval is the time between two searches for the default file where there is none.
	absentInterval = 10 * time.Second
)

// expectations is the file of expectations while the program runs.
type expectations struct {
	path     string // empty: none
	optional bool   // it need not exist
	log      logrus.FieldLogger
	again    chan struct{} // of capacity 1: load now
	absent   bool
	watch    *filewatch.Watch
}

func newExpectations(s *config.Settings, log logrus.FieldLogger) *expectations {
	return &expectations{path: s.Expect, optional: !s.Given(config.Expect), log: log, again: make(chan struct{}, 1)}
}

// load reads the file; nil where there is none. A file that is wrong is an error of usage.
func (x *expectations) load() (*expect.File, error) {
	if x.path == "" {
		return nil, nil
	}
	x.watch = filewatch.New(x.path) // before it is read, so that a later change is noticed
	file, err := readExpectations(x.path)
	x.absent = x.optional && errors.Is(err, fs.ErrNotExist)
	if x.absent {
		return nil, nil
	}
	return file, err
}

// readExpectations reads a file of expectations. A file that is wrong is an error of usage.
func readExpectations(path string) (*expect.File, error) {
	content, err := filewatch.Read(path, filewatch.MaxSize)
	if err != nil {
		return nil, usageError{&config.Error{Setting: "--" + config.Expect, Value: path, Err: err}}
	}
	file, err := expect.Parse(path, content)
	if err != nil {
		return nil, usageError{err}
	}
	return file, nil
}

// reload has the file read again soon, also where it does not seem to have changed.
func (x *expectations) reload() {
	select {
	case x.again <- struct{}{}:
	default:
	}
}

// run loads the file again after it has changed, until ctx ends, and passes it to apply. A file
// that is wrong is logged, and the old one stays. It warns, each day, of entries that expire.
func (x *expectations) run(ctx context.Context, file *expect.File, apply func(*expect.File)) error {
	if x.path == "" {
		return nil
	}
	x.warn(file)
	poll, daily := time.NewTimer(x.interval()), time.NewTicker(expiryEvery)
	defer poll.Stop()
	defer daily.Stop()
	// Editors write a file in several steps: it is read after an interval without a change.
	for changing := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-daily.C:
			x.warn(file)
			continue
		case <-x.again:
		case <-poll.C:
			poll.Reset(x.interval())
			changed := x.watch.Changed()
			if changed || !changing {
				changing = changed
				continue
			}
		}
		changing = false
		next, err := x.load()
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				x.log.Error("Expectations: " + strings.TrimSpace(line))
			}
			x.log.Error("The expectations were not reloaded; the old ones stay.")
			continue
		}
		file = next
		x.report(file, "reloaded")
		x.warn(file)
		apply(file)
	}
}

func (x *expectations) interval() time.Duration {
	if x.absent {
		return clock.Rest(absentInterval)
	}
	return filewatch.Interval
}

// report logs what the file has.
func (x *expectations) report(file *expect.File, done string) {
	switch {
	case file != nil:
		x.log.Infof("The expectations of %s were %s, %d entries.", x.path, done, len(file.Entries))
	case done == "reloaded":
		x.log.Infof("There is no file of expectations at %s any more: only labels count.", x.path)
	}
}

// warn logs the entries that expire soon.
func (x *expectations) warn(file *expect.File) {
	if file == nil {
		return
	}
	for _, e := range file.Expiring(time.Now(), expiryNotice) {
		x.log.Warnf("%s:%d: the entry for %s %s expires after %s; what it expects is drift then.", x.path, e.Line, e.Target, e.Ports, e.LastDay())
	}
}
