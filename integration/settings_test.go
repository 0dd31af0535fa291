package integration

import (
	"slices"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// A setting that is wrong stops the start with one line that names it, its
// value and what is allowed.
func TestBadSettings(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for name, test := range map[string]struct {
		environment []string
		arguments   []string
		texts       []string
	}{
		"interval too short":     {nil, []string{"run", "--scan-interval", "1ms"}, []string{"scan-interval", "1ms", "10ms", "1h"}},
		"interval too long":      {[]string{"PORTWATCHER_SCAN_INTERVAL=2h"}, []string{"run"}, []string{"SCAN_INTERVAL", "2h", "1h"}},
		"old name, no number":    {[]string{"SCAN_INTERVAL=often"}, []string{"run"}, []string{"SCAN_INTERVAL", "often"}},
		"close grace":            {[]string{"CLOSE_GRACE_MS=-1"}, []string{"run"}, []string{"CLOSE_GRACE_MS", "-1"}},
		"pattern":                {[]string{"MONITOR_CONTAINERS=web,!"}, []string{"run"}, []string{"MONITOR_CONTAINERS", "!"}},
		"format":                 {nil, []string{"run", "--format", "xml"}, []string{"format", "xml", "json", "text"}},
		"log level":              {nil, []string{"run", "--log-level", "loud"}, []string{"log-level", "loud"}},
		"log format":             {nil, []string{"run", "--log-format", "xml"}, []string{"log-format", "xml", "json"}},
		"unknown flag":           {nil, []string{"run", "--no-such-flag"}, []string{"no-such-flag"}},
		"unknown command":        {nil, []string{"walk"}, []string{"walk"}},
		"an argument too many":   {nil, []string{"ports", "web"}, []string{"web"}},
		"engine address":         {[]string{"DOCKER_HOST=nonsense"}, []string{"run"}, []string{"DOCKER_HOST", "nonsense"}},
		"format of another tool": {nil, []string{"ports", "--format", "xml"}, []string{"format", "xml"}},
	} {
		t.Run(name, func(t *testing.T) {
			result := harness.Run(t, test.environment, test.arguments...)
			if result.Status != 2 {
				t.Errorf("exit status %d, want 2", result.Status)
			}
			if result.Stdout != "" {
				t.Errorf("standard output is for events: %q", result.Stdout)
			}
			if problem := harness.OneLine(result.Stderr, test.texts...); problem != "" {
				t.Error(problem)
			}
		})
	}
}

// without returns portwatcher's rights but for some.
func without(rights ...string) []string {
	return slices.DeleteFunc(slices.Clone(harness.Rights), func(right string) bool {
		return slices.ContainsFunc(rights, func(missing string) bool { return strings.Contains(right, missing) })
	})
}

// complaints are the lines of standard error that are of something wrong.
func complaints(stderr string) string {
	var lines strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "level=info") {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// A container that lacks what portwatcher needs ends with one line that names what to do.
func TestMissingRights(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for name, test := range map[string]struct {
		rights []string
		texts  []string
	}{
		"pid namespace": {without("--pid=host"), []string{"pid"}},
		"SYS_PTRACE":    {without("SYS_PTRACE"), []string{"SYS_PTRACE"}},
		"SYS_ADMIN":     {without("SYS_ADMIN"), []string{"SYS_ADMIN"}},
		"capabilities":  {without("--cap-add"), []string{"SYS_PTRACE", "SYS_ADMIN"}},
		"a user":        {append(without(), "--user=65534"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			idle(t, "web")
			for _, arguments := range [][]string{{"run", "--state", "memory", "--listen", ""}, {"ports"}} {
				command := arguments[0]
				result := harness.RunInContainer(t, test.rights, arguments...)
				if result.Status != 1 || result.Stdout != "" {
					t.Errorf("%s: exit status %d, want 1; standard output %q", command, result.Status, result.Stdout)
				}
				if problem := harness.OneLine(complaints(result.Stderr), test.texts...); problem != "" {
					t.Errorf("%s: %s", command, problem)
				}
			}
			if result := harness.RunInContainer(t, test.rights, "check"); result.Status != 1 {
				t.Errorf("check: exit status %d, want 1: %s%s", result.Status, result.Stdout, result.Stderr)
			}
		})
	}
	t.Run("DAC_READ_SEARCH", func(t *testing.T) {
		result := harness.RunInContainer(t, without("DAC_READ_SEARCH"), "check")
		if result.Status != 0 || !strings.Contains(result.Stdout, "DAC_READ_SEARCH") {
			t.Errorf("check: exit status %d, want 0 and the capability's name: %s%s",
				result.Status, result.Stdout, result.Stderr)
		}
	})
}

// Without an engine `ports` fails; `run` waits for one.
func TestNoEngine(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	const nowhere = "unix:///nonexistent/docker.sock"
	result := harness.Run(t, []string{"DOCKER_HOST=" + nowhere}, "ports")
	if problem := harness.OneLine(result.Stderr, "/nonexistent/docker.sock"); problem != "" || result.Status != 1 {
		t.Errorf("ports: exit status %d, want 1; %s", result.Status, problem)
	}
	if result := harness.Run(t, []string{"DOCKER_HOST=" + nowhere}, "check"); result.Status != 1 {
		t.Errorf("check: exit status %d, want 1: %s%s", result.Status, result.Stdout, result.Stderr)
	}
	watch := harness.StartWatch(t, harness.WatchSpec{DockerHost: nowhere})
	watch.WaitLog(t, "/nonexistent/docker.sock")
}
