package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/engine"
	"portwatcher/internal/explain"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/wait"
)

func explainCommand() *cobra.Command {
	var cmd *cobra.Command
	var from string
	var probeUDP bool
	cmd = settingsCommand("explain CONTAINER:PORT[/PROTOCOL] | PORT[/PROTOCOL]", "Find out why a port cannot be reached", []string{
		config.Format, config.State, config.DockerHost, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error {
		return explainPort(ctx, s, cmd.Flags().Args(), from, probeUDP)
	})
	cmd.Args = cobra.ArbitraryArgs
	cmd.Long = `Follows the way from the process to the outside, and stops at the first link that
is broken: does a process listen, on which address, does it answer, on which
networks is the container, is the port published, does the engine forward it. It
connects by TCP and sends nothing; UDP is judged by what listens, unless --probe-udp
has it send an empty datagram by each way. Where nobody answers, it names the rules of
nftables that dropped packets meanwhile.

PORT alone is a port of the host. CONTAINER has the form of MONITOR_CONTAINERS, and
has to fit one container. What was open before comes from the journal, where there
is one.

The exit status is 0 where the port can be reached, 1 where not, 2 for wrong usage.`
	cmd.Example = `  portwatcher explain web:80
  portwatcher explain 8080
  portwatcher explain db:5432 --from web`
	cmd.Flags().StringVar(&from, "from", "", "the container that wants to reach the port; empty is another machine")
	cmd.Flags().BoolVar(&probeUDP, "probe-udp", false, "send an empty datagram to a UDP port; without it no packet is sent to UDP ports")
	return cmd
}

func explainPort(ctx context.Context, s *config.Settings, arguments []string, from string, probeUDP bool) (err error) {
	if len(arguments) != 1 {
		return usageError{fmt.Errorf("%d ports to explain: %s", len(arguments), allowedQuestion)}
	}
	question, err := parseQuestion(arguments[0], from)
	if err != nil {
		return err
	}
	if question.ProbeUDP = probeUDP; probeUDP && question.Protocol != model.UDP {
		return flagError("probe-udp", "true", "allowed for a UDP port, such as dns:53/udp")
	}
	s.LogLevel = logrus.ErrorLevel
	log, docker, err := prepareList(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	e, err := explained(ctx, question, explainSources(s, log, docker, recorded(s)))
	if err != nil {
		return err
	}
	if err := printExplanation(e, s); err != nil {
		return err
	}
	if !e.Reachable {
		return fmt.Errorf("%s cannot be reached: %s", e.Target, e.Diagnosis)
	}
	return nil
}

// explained answers a question. One that several containers fit is an error of usage.
func explained(ctx context.Context, q explain.Question, sources explain.Sources) (*explain.Explanation, error) {
	facts, err := explain.Gather(ctx, q, sources)
	switch ambiguous, ok := errors.AsType[*explain.AmbiguousError](err); {
	case ok && ambiguous.Text == q.From:
		return nil, flagError("from", q.From, "%w", ambiguous)
	case ok:
		return nil, usageError{ambiguous}
	}
	if err != nil {
		return nil, err
	}
	return explain.Explain(facts), nil
}

// explainSources returns what an explanation asks: one scan of the containers concerned,
// whatever is monitored, and the events of a journal.
func explainSources(s *config.Settings, log logrus.FieldLogger, docker *engine.Engine, events func(context.Context, journal.Query) iter.Seq2[*model.Event, error]) explain.Sources {
	return explain.Sources{
		Engine: docker, ProcRoot: s.ProcRoot,
		Open: func(ctx context.Context, relevant func(*model.Container) bool) ([]model.Open, []model.ContainerState, error) {
			c := newCapture(s, log, docker, func(o *capture.Options) {
				o.Tuning.Selection, o.Tuning.Enabled, o.Tuning.Reported = model.Selection{}, relevant, nil
			})
			open, err := c.List(ctx)
			return open, c.Containers(), err
		},
		Last: func(ctx context.Context, c *model.ContainerRef, protocol model.Protocol, port uint16) (last *model.Event, err error) {
			selection, err := model.ParseSelection(c.Name)
			if err != nil {
				return nil, err
			}
			query := journal.Query{Limit: 1, Filter: model.Filter{
				Containers: selection, Ports: model.OnePort(protocol, port), Types: []model.Type{model.Opened, model.Closed},
			}}
			for e, err := range events(ctx, query) {
				if err != nil {
					return nil, err
				}
				last = e
			}
			return last, nil
		},
	}
}

// recorded returns the events of the journal of the settings; none where there is none.
func recorded(s *config.Settings) func(context.Context, journal.Query) iter.Seq2[*model.Event, error] {
	return func(ctx context.Context, q journal.Query) iter.Seq2[*model.Event, error] {
		return func(yield func(*model.Event, error) bool) {
			if _, err := os.Stat(s.State); s.State == config.StateMemory || err != nil {
				return
			}
			err := readJournal(s, func(reader *journal.Reader) error {
				for e, err := range reader.Events(ctx, q) {
					if err != nil || !yield(e, nil) {
						return err
					}
				}
				return nil
			})
			if err != nil {
				yield(nil, err)
			}
		}
	}
}

func printExplanation(e *explain.Explanation, s *config.Settings) error {
	text := e.String()
	if s.Format == string(output.JSON) {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		text = string(output.EscapeMarks(line)) + "\n"
	}
	if _, err := os.Stdout.WriteString(text); err != nil {
		return fmt.Errorf("write the explanation: %w", err)
	}
	return nil
}

const allowedQuestion = "allowed is one port: CONTAINER:PORT[/PROTOCOL], or PORT[/PROTOCOL] of the host, such as web:80 or 8080"

// parseQuestion reads the port to explain, and the container that wants to reach it.
func parseQuestion(text, from string) (q explain.Question, err error) {
	ofHost := !strings.Contains(text, ":")
	full := text
	if ofHost {
		full = "host:" + text
	}
	target, err := wait.ParseTarget(full)
	switch {
	case err != nil && ofHost:
		return q, usageError{fmt.Errorf("port to explain %q: %s", text, allowedQuestion)}
	case err != nil:
		return q, usageError{fmt.Errorf("port to explain: %w", err)}
	}
	if _, err := model.ParseSelection(from); err != nil {
		return q, flagError("from", from, "%w", err)
	}
	q = explain.Question{Container: target.Container, Port: target.Port, Protocol: target.Protocol, From: from}
	if ofHost {
		q.Container = ""
	}
	if q.Protocol == 0 {
		q.Protocol = model.TCP
	}
	return q, nil
}
