package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/when"
)

// followed is how many events --follow begins with, like tail.
const followed = 10

// eventsQuery has the values of the flags of `portwatcher events`.
type eventsQuery struct {
	since, until             string
	containers, ports, types []string
	drifts                   []string
	outside                  *bool
	limit                    int
	follow                   bool
}

func eventsCommand() *cobra.Command {
	var q eventsQuery
	cmd := settingsCommand("events", "Read the journal: what happened", []string{
		config.State, config.Format, config.LogFormat, config.LogLevel, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error { return events(ctx, s, &q) })
	cmd.Long = `Reads what happened from the journal that "portwatcher run" writes, also while
it is running. In Compose: docker compose exec portwatcher /portwatcher events`
	cmd.Example = `  portwatcher events --since 1h --container web
  portwatcher events --since 2026-11-22 --until 2026-11-23 --port 80/tcp --type opened,closed
  portwatcher events --follow`
	q.register(cmd.Flags())
	return cmd
}

// register adds the flags. Lists are not split here: [model.ParseSelection] and
// [model.ParsePorts] do that.
func (q *eventsQuery) register(flags *pflag.FlagSet) {
	flags.StringVar(&q.since, "since", "", "from this time on: a duration back from now (1h, 7d) or a time")
	flags.StringVar(&q.until, "until", "", "up to this time, and not including it")
	flags.StringArrayVar(&q.containers, "container", nil, "of these containers, a `list`: "+model.SelectionHelp+"; may be repeated")
	flags.StringArrayVar(&q.ports, "port", nil, "of these ports and ranges, a `list` such as 80,8000-8100/tcp,53/udp; may be repeated")
	flags.StringSliceVar(&q.types, "type", nil, "of these types: opened, closed, changed, burst, gap, drift; may be repeated")
	flags.StringSliceVar(&q.drifts, "drift", nil, "with drift of these kinds: "+model.Join(model.Drifts, ", ")+"; may be repeated")
	outsideFlag(flags, &q.outside)
	flags.IntVar(&q.limit, "limit", 0, "the last so many; 0 is all")
	flags.BoolVarP(&q.follow, "follow", "f", false, fmt.Sprintf("continue with what happens; begins with the last %d unless --since or --limit is given", followed))
}

// outsideFlag adds the flag that selects by Listener.Outside.
func outsideFlag(flags *pflag.FlagSet, value **bool) {
	flags.BoolFunc("outside", "only what another machine can reach, as far as addresses and networks show; --outside=false: only what none can", func(text string) error {
		outside, err := strconv.ParseBool(text)
		*value = &outside
		return err
	})
}

func events(ctx context.Context, s *config.Settings, q *eventsQuery) error {
	query, err := q.parse(time.Now())
	if err != nil {
		return err
	}
	return readJournal(s, func(reader *journal.Reader) error {
		w := bufio.NewWriterSize(os.Stdout, 64<<10)
		read := reader.Events
		if q.follow {
			read = reader.Follow
		}
		for e, err := range read(ctx, query) {
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				return err
			}
			if _, err := w.Write(output.AppendEvent(w.AvailableBuffer(), output.Format(s.Format), e)); err != nil {
				return fmt.Errorf("write event: %w", err)
			}
			if q.follow {
				if err := w.Flush(); err != nil {
					return fmt.Errorf("write event: %w", err)
				}
			}
		}
		return w.Flush()
	})
}

// readJournal opens the journal of a running or stopped instance, and closes it after read.
func readJournal(s *config.Settings, read func(*journal.Reader) error) (err error) {
	if s.State == config.StateMemory {
		return usageError{fmt.Errorf("--state is %q: such a journal can only be read through the running instance's API", s.State)}
	}
	reader, err := journal.OpenReader(s.State)
	if err != nil {
		return err
	}
	defer closeWith(&err, reader)
	return read(reader)
}

// flagError is a bad value of a flag that is no setting.
func flagError(name, value string, format string, arguments ...any) error {
	return usageError{&config.Error{Setting: "--" + name, Value: value, Err: fmt.Errorf(format, arguments...)}}
}

func (q *eventsQuery) parse(now time.Time) (journal.Query, error) {
	query := journal.Query{Limit: q.limit}
	query.Outside = q.outside
	containers := strings.Join(q.containers, ",")
	var err error
	if query.Containers, err = model.ParseSelection(containers); err != nil {
		return query, flagError("container", containers, "%w", err)
	}
	if query.Since, err = moment("since", q.since, now); err != nil {
		return query, err
	}
	if query.Until, err = moment("until", q.until, now); err != nil {
		return query, err
	}
	if !query.Since.IsZero() && !query.Until.IsZero() && !query.Until.After(query.Since) {
		return query, flagError("until", q.until, "allowed is a time after --since %s", q.since)
	}
	if q.limit < 0 {
		return query, flagError("limit", strconv.Itoa(q.limit), "allowed are 0 (all) and more")
	}
	ports := strings.Join(q.ports, ",")
	if query.Ports, err = model.ParsePorts(ports); err != nil {
		return query, flagError("port", ports, "%w", err)
	}
	for _, text := range q.types {
		kind, err := model.ParseType(text)
		if err != nil {
			return query, flagError("type", text, "%w", err)
		}
		query.Types = append(query.Types, kind)
	}
	for _, text := range q.drifts {
		drift, err := model.ParseDrift(text)
		if err != nil {
			return query, flagError("drift", text, "%w", err)
		}
		query.Drifts = append(query.Drifts, drift)
	}
	if q.follow && q.since == "" && q.limit == 0 {
		query.Limit = followed
	}
	return query, nil
}

// moment parses the time that a flag has; only empty is the zero time.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if err := when.CheckZone(os.LookupEnv("TZ")); err != nil {
		return time.Time{}, usageError{err}
	}
	at, err := when.Parse(text, now)
	if err != nil {
		return at, flagError(flag, text, "%w", err)
	}
	if at.IsZero() { // the first moment of time
		at = at.Add(1)
	}
	return at, nil
}
