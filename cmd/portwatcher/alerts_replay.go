package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
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
