package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"portwatcher/internal/alert"
	"portwatcher/internal/alert/notify"
	"portwatcher/internal/config"
	"portwatcher/internal/filewatch"
	"portwatcher/internal/journal"
	"portwatcher/internal/output"
)

func alertsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Test receivers of alerts, and show what was sent or would have been",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(alertsTestCommand(), alertsReplayCommand(), alertsListCommand())
	return cmd
}

// alertSettings are what the commands need to know the rules and receivers.
var alertSettings = []string{config.PublicURL, config.AlertWebhook, config.AlertEmail, config.SMTPURL}

func alertsTestCommand() *cobra.Command {
	cmd := settingsCommand("test RECEIVER", "Send a receiver an example, and print what was answered",
		slices.Concat(alertSettings, []string{config.HostName, config.LogFormat, config.LogLevel, config.ConfigFile}), nil)
	cmd.Long = `Sends a marked example to a receiver of the settings, and prints what was
answered. The exit status is 1 where it was not delivered.`
	cmd.Example = `  portwatcher alerts test ops
  ALERT_WEBHOOK=https://example.org/hook portwatcher alerts test webhook`
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		settings, err := config.NewLoader(cmd.Flags(), os.Environ()).Load()
		if err != nil {
			return err
		}
		return failure(testReceiver(cmd.Context(), settings, arguments[0]))
	}
	return cmd
}

func testReceiver(ctx context.Context, s *config.Settings, name string) (err error) {
	log := newLogger(s)
	c, err := parseAlerts(s)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(c.Receivers, func(r notify.ReceiverConfig) bool { return r.Name == name })
	if at < 0 {
		var names []string
		for i := range c.Receivers {
			names = append(names, c.Receivers[i].Name)
		}
		if len(names) == 0 {
			return usageError{errors.New("there is no receiver: the file of settings has none in alerts.receivers, and neither ALERT_WEBHOOK nor ALERT_EMAIL is set")}
		}
		return usageError{fmt.Errorf("%q: there is no such receiver; allowed are %s", name, strings.Join(names, ", "))}
	}
	target, err := newReceiver(s, log)(c.Receivers[at])
	if err != nil {
		return usageError{err}
	}
	defer closeWith(&err, target)
	host := s.HostName
	if host == "" {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	example := notify.Examples(host, time.Now(), c.PublicURL)[0].Notification
	example.ID = fmt.Sprintf("%s/test/%d", host, time.Now().UnixNano())
	began := time.Now()
	outcome := target.Send(ctx, example)
	took := time.Since(began).Round(time.Millisecond)
	status := ""
	if outcome.Status != 0 {
		status = fmt.Sprintf(" (status %d)", outcome.Status)
	}
	if outcome.Response != "" {
		fmt.Printf("%s answered%s: %s\n", name, status, output.Printable(outcome.Response))
	}
	if !outcome.Delivered {
		return fmt.Errorf("%s, a receiver of the kind %s, was tried for %s%s: %w", name, target.Kind(), took, status,
			cmp.Or(outcome.Err, errors.New("it has not taken the example")))
	}
	fmt.Printf("Delivered to %s (%s) in %s%s.\n", name, target.Kind(), took, status)
	return nil
}

func alertsReplayCommand() *cobra.Command {
	var since, until, rules string
	cmd := settingsCommand("replay", "Show what would have been sent, from the journal",
		slices.Concat(alertSettings, []string{config.State, config.Format, config.LogFormat, config.LogLevel, config.ConfigFile}),
		func(ctx context.Context, s *config.Settings) error { return replayAlerts(ctx, s, since, until, rules) })
	cmd.Long = `Evaluates the rules over what the journal has, and prints each message that they
would have made, and how many. It sends nothing. Without a receiver in the
settings the messages are those of the receivers that the rules name.`
	cmd.Example = `  portwatcher alerts replay --since 7d
  portwatcher alerts replay --since 2026-11-22 --rules new.yaml --format json`
	cmd.Flags().StringVar(&since, "since", "7d", "from this time on: a duration back from now (1h, 7d) or a time")
	cmd.Flags().StringVar(&until, "until", "", "up to this time, and not including it; empty is now")
	cmd.Flags().StringVar(&rules, "rules", "", "`file` with another alerts: section than that of the settings")
	return cmd
}

// replayed is a message of a replay as JSON.
type replayed struct {
	Receiver string          `json:"receiver"`
	Time     time.Time       `json:"time"`
	ID       string          `json:"id"`
	Host     string          `json:"host,omitempty"`
	Project  string          `json:"project,omitempty"`
	Severity notify.Severity `json:"severity"`
	Digest   bool            `json:"digest,omitempty"`
	Title    string          `json:"title"`
	Alerts   []replayedAlert `json:"alerts"`
}

type replayedAlert struct {
	Rule     string          `json:"rule"`
	Severity notify.Severity `json:"severity"`
	Status   notify.Status   `json:"status"`
	Since    time.Time       `json:"since"`
	Until    time.Time       `json:"until,omitzero"`
	EventID  uint64          `json:"event_id"`
}

func newReplayed(r alert.Replayed) replayed {
	all := replayed{
		Receiver: r.Receiver, Time: r.Time, ID: r.ID, Host: r.Host, Project: r.Project, Severity: r.Severity, Digest: r.Digest,
		Title: notify.Render(r.Notification).Title, Alerts: []replayedAlert{},
	}
	for i := range r.Alerts {
		a := &r.Alerts[i]
		all.Alerts = append(all.Alerts, replayedAlert{a.Rule, a.Severity, a.Status, a.Since, a.Until, a.Event.ID})
	}
	return all
}

func replayAlerts(ctx context.Context, s *config.Settings, since, until, rules string) error {
	log, now := newLogger(s), time.Now()
	from, err := moment("since", since, now)
	if err != nil {
		return err
	}
	to, err := moment("until", until, now)
	if err != nil {
		return err
	}
	if to.IsZero() {
		to = now
	}
	if !to.After(from) {
		return flagError("until", until, "allowed is a time after --since %s", since)
	}
	c, err := replayConfig(s, rules)
	if err != nil {
		return err
	}
	return readJournal(s, func(reader *journal.Reader) error {
		out := bufio.NewWriter(os.Stdout)
		messages := map[string]int{}
		events, counts, err := alert.Replay(ctx, c, reader, from, to, func(err error) { log.Warn(err) }, func(r alert.Replayed) error {
			messages[r.Receiver]++
			if s.Format == string(output.JSON) {
				encoder := json.NewEncoder(out)
				encoder.SetEscapeHTML(false)
				return encoder.Encode(newReplayed(r))
			}
			digest := ""
			if r.Digest {
				digest = " (digest)"
			}
			m := notify.Render(r.Notification)
			_, err := fmt.Fprintf(out, "%s to %s%s: %s\n%s\n\n", r.Time.Format(time.RFC3339), r.Receiver, digest, m.Title, indented(m.Text))
			return err
		})
		if err = errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if s.Format != string(output.JSON) {
			printCounts(c, events, counts, messages)
		}
		return nil
	})
}

func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

// printCounts prints how many messages a replay made.
func printCounts(c *alert.Config, events int, counts map[string]alert.RuleCounts, messages map[string]int) {
	total := 0
	for _, n := range messages {
		total += n
	}
	fmt.Printf("%s of %s.\n", counted(total, "message"), counted(events, "event"))
	for i := range c.Receivers {
		fmt.Printf("  to %s: %d\n", c.Receivers[i].Name, messages[c.Receivers[i].Name])
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Printf("  rule %s matched %s\n", name, counted(int(counts[name].Matched), "event"))
	}
}

// replayConfig returns the settings of a replay. It sends nothing, so that a section without
// receivers has those of the settings, or else those that its rules name.
func replayConfig(s *config.Settings, rules string) (*alert.Config, error) {
	if rules != "" {
		section, err := readRules(rules)
		if err != nil {
			return nil, usageError{err}
		}
		if receivers := fieldOf(s.Alerts.Node, "receivers"); receivers != nil && fieldOf(section.Node, "receivers") == nil {
			section.Node = withField(section.Node, "receivers", receivers)
		}
		s.Alerts = section
	}
	if s.AlertWebhook == "" && s.AlertEmail == "" && fieldOf(s.Alerts.Node, "receivers") == nil {
		s.Alerts.Node = withField(s.Alerts.Node, "receivers", standIns(fieldOf(s.Alerts.Node, "rules")))
	}
	return parseAlerts(s)
}

// fieldOf returns the value of a field of a mapping; nil where it has none.
func fieldOf(node *yaml.Node, name string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for pair := range slices.Chunk(node.Content, 2) {
		if pair[0].Value == name {
			return pair[1]
		}
	}
	return nil
}

// withField returns a mapping with one field more. What is no mapping stays as it is, for the error
// about it.
func withField(node *yaml.Node, name string, value *yaml.Node) *yaml.Node {
	if node == nil || node.Tag == "!!null" {
		node = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	if node.Kind != yaml.MappingNode {
		return node
	}
	with := *node
	with.Content = append(slices.Clone(node.Content), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, value)
	return &with
}

// standIns returns receivers of the names that rules use; one where they use none.
func standIns(rules *yaml.Node) *yaml.Node {
	var names []string
	if rules != nil {
		for _, rule := range rules.Content {
			to := fieldOf(rule, "to")
			switch {
			case to == nil:
			case to.Kind == yaml.ScalarNode:
				names = append(names, to.Value)
			default:
				for _, name := range to.Content {
					names = append(names, name.Value)
				}
			}
		}
	}
	if len(names) == 0 {
		names = []string{"anyone"}
	}
	text := func(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value} }
	mapping := func(fields ...*yaml.Node) *yaml.Node {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: fields}
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		list.Content = append(list.Content, mapping(text("name"), text(name), text("webhook"), mapping(text("url"), text("http://localhost"))))
	}
	return list
}

// readRules reads a file that has the section of alerts, alone or in a file of settings.
func readRules(path string) (config.Section, error) {
	content, err := filewatch.Read(path, filewatch.MaxSize)
	if err != nil {
		return config.Section{}, fmt.Errorf("--rules: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return config.Section{}, fmt.Errorf("--rules: %s: it is not valid YAML: %w", path, err)
	}
	if len(document.Content) == 0 {
		return config.Section{}, fmt.Errorf("--rules: %s: it is empty; allowed is a section alerts", path)
	}
	root := document.Content[0]
	if root.Kind == yaml.MappingNode {
		for pair := range slices.Chunk(root.Content, 2) {
			if pair[0].Value == config.AlertsSection {
				return config.Section{File: path, Line: pair[0].Line, Node: pair[1]}, nil
			}
		}
	}
	return config.Section{File: path, Line: root.Line, Node: root}, nil
}

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
