package integration

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// The list needs no running portwatcher, is sorted and aligned, and has the
// IPv4 and IPv6 wildcards of one port in one row.
func TestPorts(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	second := start(t, "b", 4, append([]string{"--publish", "90"}, ipv6...),
		"--v6only", "--tcp", "[::]:90,0.0.0.0:90,127.0.0.1:8", "--udp", "0.0.0.0:53")
	first := start(t, "a", 1, nil, "--tcp", "0.0.0.0:80")
	open := slices.Concat(listening(t, first, 1), listening(t, second, 4))
	if difference := harness.Difference(openPorts(t, harness.Pattern(t)), open); difference != "" {
		t.Error(difference)
	}
	result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + harness.Pattern(t)}, "ports")
	if result.Status != 0 || result.Stderr != "" {
		t.Errorf("exit status %d, want 0: %s", result.Status, result.Stderr)
	}
	rows := strings.Split(strings.TrimSpace(result.Stdout), "\n")
	if len(rows) != 1+4 {
		t.Fatalf("want a heading and 4 rows:\n%s", result.Stdout)
	}
	for i, texts := range [][]string{
		{first.Name, "80", "tcp", "0.0.0.0", "workload", "network"},
		{second.Name, "8", "tcp", "127.0.0.1", "loopback"},
		{second.Name, "53", "udp", "0.0.0.0", "network"},
		append([]string{second.Name, "90", "tcp"}, second.Published(t, "90/tcp")...),
	} {
		for _, text := range texts {
			if !strings.Contains(rows[i+1], text) {
				t.Errorf("row %d: want %s in it:\n%s", i+1, text, result.Stdout)
			}
		}
	}
	// A column is aligned if what starts below its heading starts a word.
	for _, heading := range regexp.MustCompile(`\S+( \S+)*`).FindAllStringIndex(rows[0], -1) {
		for _, row := range rows[1:] {
			if column := heading[0]; column > 0 && column < len(row) && row[column-1] != ' ' {
				t.Errorf("not aligned at column %d of\n%s\n%s", column, rows[0], row)
			}
		}
	}
}

// An event has the fields of the design and no other.
func TestEventFields(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "web", 1, []string{"--publish", "80",
		"--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.service=web"}, "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, listening(t, container, 1))
	container.Do(t, "kill")
	opened := watch.WaitEvent(t, 0, harness.Match{Type: "opened"})
	closed := watch.WaitEvent(t, 0, harness.Match{Type: "closed"})
	both := []string{"address", "container", "exposure", "host", "id", "outside", "port", "processes", "protocol",
		"published", "source", "time", "transient", "type"}
	expectKeys(t, opened.Line, both...)
	expectKeys(t, closed.Line, append(both, "opened_at", "open_seconds")...)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	image := harness.WorkloadImage(t, harness.Default)
	for _, event := range []truth.Event{opened, closed} {
		want := model.ContainerRef{ID: container.ID, Name: container.Name, Image: image, Project: "shop", Service: "web"}
		if event.Host != host || !event.Container.Same(&want) || event.Transient {
			t.Errorf("want host %s, container %+v and no transient: %s", host, want, event.Line)
		}
	}
	if source := opened.Source; source != "ebpf" && source != "sock_diag" {
		t.Errorf("want source ebpf, or sock_diag without it: %s", opened.Line)
	}
	age := closed.Time.Sub(opened.Time)
	if age <= 0 || time.Since(closed.Time) > harness.Patience || !closed.OpenedAt.Equal(opened.Time) {
		t.Errorf("the times do not fit: %s %s", opened.Line, closed.Line)
	}
}

func expectKeys(t *testing.T, line string, want ...string) {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &object); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if keys := slices.Sorted(maps.Keys(object)); !slices.Equal(keys, want) {
		t.Errorf("fields %q, want %q", keys, want)
	}
}

// The text form is one line for people, and the default.
func TestText(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 1, []string{"--publish", "127.0.0.1::80"}, "--tcp", "0.0.0.0:80")
	command := exec.Command(harness.Portwatcher(t), "run")
	command.Env = append(os.Environ(), "MONITOR_CONTAINERS="+container.Name, harness.StateOf(t))
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(harness.Patience, func() { _ = command.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(stdout)
	listener := listening(t, container, 1)[0]
	stamp := `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ` + regexp.QuoteMeta(container.Name)
	pids := `pids: ` + itoa(listener.Processes[0].PID) + ` workload\)`
	for _, pattern := range []string{
		stamp + `: New port opened: 80/tcp on 0\.0\.0\.0 \(` + pids + ` published at ` + regexp.QuoteMeta(listener.Published[0]) + `$`,
		stamp + `: Port closed: 80/tcp on 0\.0\.0\.0 \(last ` + pids + ` after [0-9.]+m?s$`,
	} {
		if !lines.Scan() || !regexp.MustCompile(pattern).MatchString(lines.Text()) {
			t.Errorf("line %q, want %s", lines.Text(), pattern)
		}
		container.Do(t, "stop") // a second time it is stopped already
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("portwatcher run: %v", err)
	}
}

// What works here is printed, each with its name.
func TestCheck(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	idle(t, "web") // the check of the pid namespace needs a container
	for name, result := range map[string]harness.Result{
		"as a process":   harness.Run(t, nil, "check"),
		"in a container": harness.RunInContainer(t, harness.Rights, "check"),
	} {
		if result.Status != 0 {
			t.Errorf("%s: exit status %d, want 0: %s%s", name, result.Status, result.Stdout, result.Stderr)
		}
		for _, subject := range []string{"engine", "pid namespace", "capabilities", "sock_diag", "cgroup", "containers"} {
			if !strings.Contains(strings.ToLower(result.Stdout), subject) {
				t.Errorf("%s: no line about %s:\n%s", name, subject, result.Stdout)
			}
		}
	}
	result := harness.Run(t, nil, "version")
	if result.Status != 0 || !strings.Contains(result.Stdout, "go1.") {
		t.Errorf("version: exit status %d: %s%s", result.Status, result.Stdout, result.Stderr)
	}
}

// The health check reports whether a running instance is ready.
func TestHealthcheck(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	container := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	watch := harness.StartWatch(t, harness.WatchSpec{})
	watch.WaitOpen(t, listening(t, container, 1))
	environment := []string{"PORTWATCHER_HEALTH_SOCKET=" + watch.HealthSocket}
	harness.WaitHealth(t, watch.HealthSocket, 0) // all containers are known
	if result := harness.Run(t, environment, "healthcheck"); result.Status != 0 {
		t.Errorf("while it watches: exit status %d, want 0: %s", result.Status, result.Stderr)
	}
	watch.Stop(t, syscall.SIGTERM)
	result := harness.Run(t, environment, "healthcheck")
	if problem := harness.OneLine(result.Stderr, watch.HealthSocket); problem != "" || result.Status != 1 {
		t.Errorf("after its end: exit status %d, want 1; %s", result.Status, problem)
	}
}
