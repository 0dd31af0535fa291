package main

import (
	"bytes"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

// execute runs the command line, and returns what it printed.
func execute(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(arguments)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// A usage error names the mistake and what is allowed.
func TestUsageErrors(t *testing.T) {
	for line, want := range map[string][]string{
		"runn":                   {`"runn"`, "check, config, events, expect, explain, healthcheck, ports, run, top, version, wait", "did you mean run?"},
		"ports web":              {`"web"`, "portwatcher ports --monitor-containers web"},
		"events web":             {`"web"`, "portwatcher events --container web"},
		"version now":            {`"now"`, "takes no arguments", "portwatcher version --help"},
		"run --scaninterval 1s":  {"--scaninterval", "did you mean --scan-interval?", "portwatcher run --help"},
		"run --nothing-like-it":  {"--nothing-like-it", "portwatcher run --help"},
		"ports --source":         {"--source", "portwatcher ports --help"},
		"wait --timeout x web:1": {"--timeout", `"x"`, "portwatcher wait --help"},
	} {
		_, err := execute(t, strings.Fields(line)...)
		if err == nil || strings.Contains(err.Error(), "\n") || status(err) != exitUsage {
			t.Errorf("%s: error %v, want one line and exit status %d", line, err, exitUsage)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v\nlacks %q", line, err, part)
			}
		}
	}
}

func TestHelpOfEveryCommand(t *testing.T) {
	lines := []string{""}
	for _, cmd := range root().Commands() {
		lines = append(lines, cmd.Name())
	}
	for _, name := range lines {
		out, err := execute(t, append(strings.Fields(name), "--help")...)
		if err != nil || !strings.Contains(out, "-h, --help ") || strings.Contains(out, "true|false") {
			t.Errorf("help of %q, error %v:\n%s", name, err, out)
		}
	}
}

func TestNothingOpen(t *testing.T) {
	watched := model.ContainerState{Container: &model.Container{Name: "web"}, Monitored: true}
	other := model.ContainerState{Container: &model.Container{Name: "db"}}
	for want, containers := range map[string][]model.ContainerState{
		"No container is running": nil,
		"None of the running":     {other},
		"(1 of 2 that run)":       {watched, other},
	} {
		if got := nothingOpen(containers); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestLabelProblems(t *testing.T) {
	plain := &model.Container{Name: "web", Labels: map[string]string{"com.example": "1"}}
	if problems := labelProblems(plain); problems != nil {
		t.Errorf("problems of good labels: %q", problems)
	}
	bad := &model.Container{Name: "web", Labels: map[string]string{"portwatcher.enable": "maybe", "portwatcher.ignore": "x", "portwatcher.enabled": "1"}}
	if problems := labelProblems(bad); len(problems) != 3 {
		t.Errorf("problems of bad labels: %q", problems)
	}
}
