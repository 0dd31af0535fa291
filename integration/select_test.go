package integration

import (
	"slices"
	"testing"

	"portwatcher/integration/internal/harness"
)

// MONITOR_CONTAINERS selects containers, and a label of the container's own
// can take it out.
func TestSelection(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	prefix := harness.Name(t, "")
	project, team := harness.Name(t, "project"), harness.Name(t, "team")
	labels := map[string][]string{
		"web":    {"com.docker.compose.project=" + project, "com.docker.compose.service=web"},
		"db":     {"com.docker.compose.project=" + project, "com.docker.compose.service=db", "team=" + team},
		"cache":  {"team=" + team},
		"off":    {"team=" + team, "portwatcher.enable=false"},
		"plain":  nil,
		"plain2": nil,
	}
	containers := make(map[string]*harness.Container)
	for name, values := range labels {
		var options []string
		for _, value := range values {
			options = append(options, "--label", value)
		}
		containers[name] = start(t, name, 1, options, "--tcp", "0.0.0.0:80")
	}
	for name, test := range map[string]struct {
		monitor string
		want    []string
	}{
		"name":             {prefix + "plain", []string{"plain"}},
		"names":            {prefix + "plain, " + prefix + "web", []string{"plain", "web"}},
		"blanks":           {prefix + "plain " + prefix + "web", []string{"plain", "web"}},
		"pattern":          {prefix + "plain*", []string{"plain", "plain2"}},
		"exclusion":        {prefix + "* !" + prefix + "plain*", []string{"web", "db", "cache"}},
		"exclusion first":  {"!" + prefix + "plain*," + prefix + "*", []string{"web", "db", "cache"}},
		"service":          {project + "/web", []string{"web"}},
		"label":            {"label:team=" + team, []string{"db", "cache"}},
		"label, exclusion": {"label:team=" + team + ",!" + project + "/db", []string{"cache"}},
		"switched off":     {prefix + "*", []string{"web", "db", "cache", "plain", "plain2"}},
	} {
		t.Run(name, func(t *testing.T) {
			watch := harness.StartWatch(t, harness.WatchSpec{Monitor: test.monitor})
			var open []harness.Listener
			for _, want := range test.want {
				open = append(open, listening(t, containers[want], 1)...)
			}
			watch.WaitOpen(t, open)
			watch.Marker(t, containers[test.want[0]], 1000)
			watch.WaitOpen(t, open)
			watch.Expect(t, len(open)+1, harness.Match{Type: "opened"})
			event := watch.WaitEvent(t, 0, harness.Match{Container: containers[test.want[0]].Name})
			compose := labels[test.want[0]]
			if slices.Contains(compose, "com.docker.compose.project="+project) &&
				(event.Container.Project != project || event.Container.Service != test.want[0]) {
				t.Errorf("want project %s and service %s: %s", project, test.want[0], event.Line)
			}
		})
	}
}

// A name that no container has yet is waited for, and logged once.
func TestLaterName(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	clock := idle(t, "clock")
	name := harness.Name(t, "later")
	watch := harness.StartWatch(t, harness.WatchSpec{Monitor: clock.Name + "," + name})
	watch.WaitLog(t, name)
	for range 2 { // others that come and go are no reason to log it again
		idle(t, "other").Do(t, "rm", "--force")
		watch.Marker(t, clock, 1000)
	}
	if count := watch.Logs(name); count != 1 {
		t.Errorf("%d log lines name the container that is not there, want 1", count)
	}
	later := start(t, "later", 1, nil, "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, listening(t, later, 1))
}
