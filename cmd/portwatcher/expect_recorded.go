package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/config"
	"portwatcher/internal/expect"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

// compareAt compares what was open at a time, as the journal has it.
func compareAt(ctx context.Context, s *config.Settings, log logrus.FieldLogger, file *expect.File, at time.Time) (report *expect.Report, err error) {
	err = readJournal(s, func(reader *journal.Reader) error {
		state, err := stateAt(ctx, reader, s, log, at)
		if err != nil {
			return err
		}
		report = newReport(file, state)
		for _, d := range expect.Compare(file, state) {
			report.Drifts = append(report.Drifts, model.DriftPeriod{OpenDrift: d})
		}
		return nil
	})
	return report, err
}

// stateAt returns what was open at a time. The containers are those in which something was.
func stateAt(ctx context.Context, reader *journal.Reader, s *config.Settings, log logrus.FieldLogger, at time.Time) (expect.State, error) {
	state := expect.State{Time: at.UTC()}
	open, watching, err := reader.At(ctx, at, model.Filter{Containers: s.Containers, Ports: s.WatchPorts})
	if err != nil {
		return state, err
	}
	if !watching.Running {
		log.Warnf("portwatcher was not running at %s: this is the state at the end of its last run before (%s).",
			at.UTC().Format(time.RFC3339), watching.Stopped.UTC().Format(time.RFC3339))
	}
	seen := map[string]bool{}
	for i := range open {
		if c := open[i].Container; c != nil && !seen[c.ID] {
			seen[c.ID] = true
			state.Containers = append(state.Containers, c)
		}
	}
	state.Open = open
	return state, nil
}

// compareSince compares what was open since a time, as the journal has it.
func compareSince(ctx context.Context, s *config.Settings, log logrus.FieldLogger, file *expect.File, since, now time.Time) (report *expect.Report, err error) {
	history := expect.NewHistory(file)
	var refs []*model.ContainerRef
	err = recordedSince(ctx, s, log, since, func(open []model.Open, from time.Time) {
		since = from
		history.Begin(open)
	}, func(e *model.Event) {
		if e.Container != nil && !slices.ContainsFunc(refs, e.Container.Same) {
			refs = append(refs, e.Container)
		}
		history.Apply(e)
	})
	if err != nil {
		return nil, err
	}
	report = newReport(file, expect.State{Time: now, Containers: refs})
	report.Since, report.Drifts = since.UTC(), append(report.Drifts, history.End(now)...)
	return report, nil
}

// recordedSince reads the journal from a time on: begin receives what was open then, or at the
// beginning of the record where that is later, and apply each event since.
func recordedSince(ctx context.Context, s *config.Settings, log logrus.FieldLogger, since time.Time, begin func(open []model.Open, from time.Time), apply func(*model.Event)) error {
	return readJournal(s, func(reader *journal.Reader) error {
		state, err := stateAt(ctx, reader, s, log, since)
		if unknown, ok := errors.AsType[*journal.UnknownTimeError](err); ok && since.Before(unknown.From) && !unknown.From.IsZero() {
			log.Warnf("The journal begins at %s.", unknown.From.UTC().Format(time.RFC3339))
			since = unknown.From
			state, err = stateAt(ctx, reader, s, log, since)
		}
		if err != nil {
			return err
		}
		begin(state.Open, since)
		query := journal.Query{Since: since, Filter: model.Filter{Containers: s.Containers, Ports: s.WatchPorts}}
		for e, err := range reader.Events(ctx, query) {
			if damaged, ok := errors.AsType[*journal.DamagedError](err); ok {
				log.Warn(damaged)
				continue
			}
			if err != nil {
				return err
			}
			apply(e)
		}
		return nil
	})
}
