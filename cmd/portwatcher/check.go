package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/engine"
	"portwatcher/internal/expect"
	"portwatcher/internal/model"
	"portwatcher/internal/preflight"
)

func checkCommand() *cobra.Command {
	return settingsCommand("check", "Print what works on this host, and what to do about the rest", []string{
		config.Source, config.Expect, config.LogFormat, config.LogLevel, config.DockerHost, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, check)
}

func check(ctx context.Context, s *config.Settings) (err error) {
	docker, err := newEngine(s, newLogger(s))
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	results := preflight.All(ctx, docker, preflightOptions(s))
	results = slices.Insert(results, len(results)-1, expectationsWork(ctx, s, docker)...) // the last is the summary
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Name, r.State, r.Detail)
		if r.Remedy != "" {
			fmt.Fprintf(table, "\t\tremedy: %s\n", r.Remedy)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return preflight.Failure(results)
}

// expectationsWork checks the file of expectations and the labels of the running containers.
// Where the engine does not answer, the labels are not compared: its own check reports that.
func expectationsWork(ctx context.Context, s *config.Settings, docker *engine.Engine) []preflight.Result {
	const name = "expectations"
	file, err := newExpectations(s, newLogger(s)).load()
	if err != nil {
		var results []preflight.Result
		for line := range strings.Lines(err.Error()) {
			results = append(results, preflight.Result{
				Name: name, State: preflight.Failed, Detail: strings.TrimSpace(line), Remedy: "correct the file that --expect names: docs/expectations.md has its form",
			})
		}
		return results
	}
	found := preflight.Result{Name: name, State: preflight.OK, Detail: "no file: only labels of containers count"}
	if file != nil {
		found.Detail = fmt.Sprintf("%s, %d entries", file.Name, len(file.Entries))
	}
	results := []preflight.Result{found}
	containers, _ := docker.List(ctx)
	refs := make([]*model.ContainerRef, len(containers))
	for i, c := range containers {
		refs[i] = c.Ref()
	}
	disagreements, invalid := expect.Disagreements(file, refs, time.Now())
	for _, text := range invalid {
		results = append(results, preflight.Result{Name: name, State: preflight.Degraded, Detail: text, Remedy: "correct the label; until then it counts for nothing"})
	}
	for i := range disagreements {
		results = append(results, preflight.Result{Name: name, State: preflight.Degraded, Detail: disagreements[i].String(), Remedy: "change one of them"})
	}
	return results
}
