package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/output"
)

func alertsListCommand() *cobra.Command {
	var since, receiver, state string
	var limit int
	cmd := settingsCommand("list", "List what was sent, with the tries of each delivery", []string{
		config.State, config.Format, config.LogFormat, config.LogLevel, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error {
		return listAlerts(ctx, s, since, receiver, state, limit)
	})
	cmd.Example = `  portwatcher alerts list --since 1d
  portwatcher alerts list --status dead --format json`
	flags := cmd.Flags()
	flags.StringVar(&since, "since", "", "made from this time on: a duration back from now (1h, 7d) or a time; empty is all")
	flags.StringVar(&receiver, "receiver", "", "to this receiver alone")
	flags.StringVar(&state, "status", "", "in this state alone: "+states())
	flags.IntVar(&limit, "limit", 50, "the last so many; 0 is all")
	return cmd
}

func states() string {
	var names []string
	for _, s := range journal.DeliveryStates {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// listed is a delivery as JSON.
type listed struct {
	ID       string                `json:"id"`
	Receiver string                `json:"receiver"`
	State    journal.DeliveryState `json:"state"`
	Made     time.Time             `json:"made"`
	Due      time.Time             `json:"due,omitzero"`
	Finished time.Time             `json:"finished,omitzero"`
	Tried    int                   `json:"tried"`
	Tries    []journal.Try         `json:"tries"`
	Title    string                `json:"title"`
	Severity string                `json:"severity"`
	Digest   bool                  `json:"digest,omitempty"`
	Alerts   int                   `json:"alerts"`
}

func newListed(d *journal.Delivery) listed {
	l := listed{
		ID: d.ID, Receiver: d.Receiver, State: d.State, Made: d.Made, Due: d.Due, Finished: d.Finished,
		Tried: d.Tried, Tries: append([]journal.Try{}, d.Tries...), Alerts: d.Alerts, Title: d.Title, Severity: d.Severity, Digest: d.Digest,
	}
	if d.State != journal.DeliveryPending {
		l.Due = time.Time{}
	}
	return l
}

func listAlerts(ctx context.Context, s *config.Settings, since, receiver, state string, limit int) error {
	q := journal.DeliveryQuery{Receiver: receiver, State: journal.DeliveryState(state), Limit: limit}
	if state != "" && !slices.Contains(journal.DeliveryStates, q.State) {
		return flagError("status", state, "allowed are %s", states())
	}
	if limit < 0 {
		return flagError("limit", fmt.Sprint(limit), "allowed are 0 (all) and more")
	}
	var err error
	if q.Since, err = moment("since", since, time.Now()); err != nil {
		return err
	}
	return readJournal(s, func(reader *journal.Reader) error {
		deliveries, err := reader.Deliveries(ctx, q)
		if err != nil {
			return err
		}
		list := make([]listed, len(deliveries))
		for i := range deliveries {
			list[len(deliveries)-1-i] = newListed(&deliveries[i])
		}
		if s.Format == string(output.JSON) {
			encoder := json.NewEncoder(os.Stdout)
			encoder.SetEscapeHTML(false)
			encoder.SetIndent("", "  ")
			return encoder.Encode(list)
		}
		return printDeliveries(list)
	})
}

func printDeliveries(list []listed) error {
	if len(list) == 0 {
		fmt.Fprintln(os.Stderr, "The journal has no such delivery.")
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MADE\tRECEIVER\tSTATE\tTRIES\tALERTS\tMESSAGE\tLAST ANSWER")
	for i := range list {
		l := &list[i]
		title := l.Title
		if l.Digest {
			title += " (digest)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", l.Made.Format(time.RFC3339), l.Receiver, l.State, l.Tried, l.Alerts,
			output.Printable(title), output.Printable(lastAnswer(l)))
	}
	return table.Flush()
}

// lastAnswer describes the last try of a delivery.
func lastAnswer(l *listed) string {
	if len(l.Tries) == 0 {
		return "not tried yet"
	}
	last := l.Tries[len(l.Tries)-1]
	text := cmp.Or(last.Error, last.Response)
	if last.Status != 0 && last.Error == "" {
		text = strings.TrimSpace(fmt.Sprintf("%d %s", last.Status, text))
	}
	if l.State == journal.DeliveryPending {
		text += "; next try at " + l.Due.Format(time.RFC3339)
	}
	return text
}

// counted returns a number with a noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
