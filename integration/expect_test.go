package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
)

// expected is a portwatcher with a file of expectations.
type expected struct {
	t       *testing.T
	watch   *harness.Watch
	path    string
	project string
	state   string
	reloads int
}

func watchExpected(t *testing.T, lines ...string) *expected {
	t.Helper()
	folder := t.TempDir()
	x := &expected{t: t, path: filepath.Join(folder, "expected.yaml"), project: harness.Name(t, "shop"), state: filepath.Join(folder, "portwatcher.db")}
	x.put(lines...)
	x.watch = harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--expect", x.path}, State: x.state})
	x.watch.WaitLog(t, x.path, "were read")
	return x
}

// put replaces the file by entries, in which P is the project.
func (x *expected) put(entries ...string) {
	x.t.Helper()
	text := "version: 1\nexpect:\n"
	for _, entry := range entries {
		text += "  - " + strings.ReplaceAll(entry, "P/", x.project+"/") + "\n"
	}
	x.write(text)
}

func (x *expected) write(text string) {
	x.t.Helper()
	fresh := x.path + ".fresh"
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
	if err := os.Rename(fresh, x.path); err != nil {
		x.t.Fatal(err)
	}
}

// waitReload waits until the file was reloaded once more.
func (x *expected) waitReload() {
	x.t.Helper()
	x.reloads++
	harness.Eventually(x.t, "the expectations are reloaded", func() string {
		if x.watch.Logs("were reloaded") < x.reloads {
			return "not yet"
		}
		return ""
	})
}

// container starts a container of a service that listens.
func (x *expected) container(name, service string, options []string, listen string) *harness.Container {
	x.t.Helper()
	labels := []string{"--label", model.LabelProject + "=" + x.project, "--label", model.LabelService + "=" + service}
	return start(x.t, name, 1, slices.Concat(labels, options), "--mptcp=false", "--tcp", listen)
}

// drifts returns the events with a drift after an id, in short.
func (x *expected) drifts(after uint64) (short []string) {
	for _, e := range x.watch.Events(harness.Match{}) {
		if e.ID <= after || e.Drift == "" {
			continue
		}
		text := fmt.Sprintf("%s %s %s", e.Type, e.Drift, e.Container.Target())
		if e.Port != 0 {
			text += " " + strconv.Itoa(int(e.Port))
		}
		if e.Ended {
			text += " ended"
		}
		short = append(short, strings.ReplaceAll(text, x.project+"/", "P/"))
	}
	return short
}

// wait waits until exactly these events with a drift came after an id, in any order.
func (x *expected) wait(after uint64, want ...string) {
	x.t.Helper()
	slices.Sort(want)
	harness.Eventually(x.t, "these drifts are reported", func() string {
		got := x.drifts(after)
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Sprintf("got %q, want %q", got, want)
		}
		return ""
	})
}

// silent checks that no event with a drift came after an id, and no port was left out.
func (x *expected) silent(after uint64, what string, container *harness.Container) {
	x.t.Helper()
	x.watch.Marker(x.t, container, markerPort)
	if got := x.drifts(after); len(got) > 0 {
		x.t.Errorf("%s: drifts %q, want none", what, got)
	}
}

// markerPort is expected on loopback by every file of the tests.
const markerPort = 1000

const (
	marker     = "{target: 'P/*', port: 1000/tcp, exposure: loopback}"
	requiredDB = "{target: P/db, port: 5432/tcp, exposure: network, required: true, for: 2s}"
)

// TestDrift goes through the life of a project.
func TestDrift(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	x := watchExpected(t, marker, requiredDB, "{target: P/web, port: 80/tcp, exposure: network}")
	watch := x.watch

	// A required port of a container that does not run is missing after its time, until it is open.
	x.wait(0, "drift missing P/db 5432")
	at := watch.LastID()
	db := x.container("db", "db", nil, "0.0.0.0:5432")
	x.wait(at, "drift missing P/db 5432 ended")

	// What is expected is silent, also another container of it, and more of them.
	at = watch.LastID()
	web := x.container("web", "web", nil, "0.0.0.0:80")
	watch.WaitEvent(t, at, harness.Opened(web.Name, "tcp", "0.0.0.0", 80))
	web.Do(t, "restart", "--time", "1")
	web.Refresh(t)
	web.WaitLogs(t, 2, `"action":"opened"`)
	x.silent(at, "a restart", web)
	web.Do(t, "rm", "--force")
	web = x.container("web", "web", nil, "0.0.0.0:80")
	x.container("web-2", "web", nil, "0.0.0.0:80")
	x.container("web-3", "web", nil, "0.0.0.0:80")
	x.silent(at, "another container and replicas", web)

	// An unexpected port is drift while it is open, however short that is.
	at = watch.LastID()
	run := web.Exec(t, "listen", "--mptcp=false", "--tcp", "0.0.0.0:4444")
	x.wait(at, "opened unexpected P/web 4444")
	run.Stop(t)
	x.wait(at, "opened unexpected P/web 4444", "closed unexpected P/web 4444")

	// A redeploy that differs only in -p makes the database reachable from outside.
	at = watch.LastID()
	db.Do(t, "rm", "--force")
	db = x.container("db", "db", []string{"--publish", "127.0.0.1::5432"}, "0.0.0.0:5432")
	x.wait(at, "opened wider P/db 5432")

	// A reload: what was wider is expected, and the program is not.
	at = watch.LastID()
	x.put(marker, "{target: P/db, port: 5432/tcp, exposure: published, process: postgres}", "{target: P/web, port: 80/tcp, exposure: network}")
	x.waitReload()
	x.wait(at, "drift wider P/db 5432 ended", "drift process P/db 5432")

	// A file that is wrong changes nothing.
	at = watch.LastID()
	x.write("version: 1\nexpect:\n  - {target: web, port: http, exposure: network}\n")
	watch.WaitLog(t, "expected.yaml:3: port", `\"http\"`, "allowed are ports")
	watch.WaitLog(t, "the old ones stay")
	x.silent(at, "a wrong file", web)

	// A label covers its container; one without is reported one time, whatever it opens.
	at = watch.LastID()
	labelled := x.container("labelled", "labelled", []string{"--label", "portwatcher.expect=81/tcp@network"}, "0.0.0.0:81")
	second := labelled.Exec(t, "listen", "--mptcp=false", "--tcp", "0.0.0.0:82")
	x.wait(at, "opened unexpected P/labelled 82")
	second.Stop(t)
	at = watch.LastID()
	plain := start(t, "plain", 3, nil, "--mptcp=false", "--tcp", "0.0.0.0:80,0.0.0.0:81,0.0.0.0:82")
	x.wait(at, "drift uncovered "+plain.Name)

	x.restarted(db)
}

// restarted stops portwatcher and starts it again: what drifts is not repeated.
func (x *expected) restarted(db *harness.Container) {
	t := x.t
	t.Helper()
	x.put(marker, "{target: P/db, port: 5432/tcp, exposure: published, process: postgres}", "{target: P/web, port: 80/tcp, exposure: network}")
	if _, status := x.watch.Stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	address := loopback(9889)
	x.watch = harness.StartWatch(t, harness.WatchSpec{
		Arguments: []string{"--expect", x.path, "--listen", address}, State: x.state, After: x.watch,
	})
	x.silent(0, "a restart of portwatcher", db)
	harness.Eventually(t, "the drifts of before are open", func() string {
		response, err := http.Get("http://" + address + "/api/v1/drift")
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		var answer struct{ Drifts []model.OpenDrift }
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return err.Error()
		}
		var got []string
		for _, d := range answer.Drifts {
			got = append(got, fmt.Sprint(d.Drift, " ", d.Port))
		}
		if slices.Sort(got); !slices.Equal(got, []string{"process 5432", "uncovered 0"}) {
			return fmt.Sprintf("%+v", answer.Drifts)
		}
		return ""
	})
}

// TestExpectCommands learns a file, checks by it, and approves what differs.
func TestExpectCommands(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	x := watchExpected(t, marker)
	x.write("version: 1\n# by hand\nexpect: []\n")
	x.waitReload()
	web := x.container("web", "web", nil, "0.0.0.0:80")
	opened := x.watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 80))
	environment := []string{"MONITOR_CONTAINERS=" + harness.Pattern(t), "PORTWATCHER_STATE=" + x.state, "PORTWATCHER_EXPECT=" + x.path}
	expect := func(arguments ...string) harness.Result {
		return harness.Run(t, environment, append([]string{"expect"}, arguments...)...)
	}
	learned := expect("learn", "--since", "1h")
	if learned.Status != 0 || !strings.Contains(learned.Stdout, "- target: "+x.project+"/web\n    port: 80/tcp\n    exposure: network\n    process: workload\n") {
		t.Fatalf("learn: status %d\n%s%s", learned.Status, learned.Stdout, learned.Stderr)
	}
	file := filepath.Join(t.TempDir(), "learned.yaml")
	if err := os.WriteFile(file, []byte(learned.Stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"check", "--expect", file}, {"check", "--expect", file, "--since", "1h"}, {"check", "--expect", file, "--at", "0s"}, {"diff", file, file}} {
		if r := expect(arguments...); r.Status != 0 {
			t.Errorf("%v: status %d\n%s%s", arguments, r.Status, r.Stdout, r.Stderr)
		}
	}
	if r := expect("diff", x.path, file); r.Status != 1 || !strings.Contains(r.Stdout, "+ "+x.project+"/web 80/tcp: at most network, process workload") {
		t.Errorf("diff: status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	if r := expect("check", "--format", "yaml"); r.Status != 2 || harness.OneLine(r.Stderr, "--format", "junit, sarif") != "" {
		t.Errorf("a wrong format: status %d\n%s", r.Status, r.Stderr)
	}
	if r := expect("check", "--expect", "/does/not/exist.yaml"); r.Status != 2 {
		t.Errorf("no file: status %d\n%s", r.Status, r.Stderr)
	}
	if got := compared(t, expect("check", "--format", "json")); got != "uncovered" {
		t.Errorf("check: %q, want the container uncovered", got)
	}

	for format, want := range map[string]string{"junit": `<testcase name="` + x.project + "/web", "sarif": `"ruleId": "uncovered"`, "table": "uncovered"} {
		if r := expect("check", "--format", format); r.Status != 1 || !strings.Contains(r.Stdout, want) {
			t.Errorf("%s: status %d\n%s%s", format, r.Status, r.Stdout, r.Stderr)
		}
	}

	// What was approved is expected, and the comments stay.
	if r := expect("approve", strconv.FormatUint(opened.ID, 10), "--reason", "the site"); r.Status != 0 {
		t.Fatalf("approve: status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	content, err := os.ReadFile(x.path)
	if err != nil || !strings.Contains(string(content), "# by hand") || !strings.Contains(string(content), "the site (approved ") {
		t.Errorf("the file is %s, error %v", content, err)
	}
	x.waitReload()
	if got := compared(t, expect("check", "--format", "json", "--wait", "30s")); got != "" {
		t.Errorf("after the approval: %q", got)
	}
	// A pipeline waits for what is required.
	x.put(marker, "{target: P/web, port: '80/tcp', exposure: network}", "{target: P/late, port: 81/tcp, exposure: network, required: true}")
	done := make(chan harness.Result, 1)
	go func() { done <- expect("check", "--format", "json", "--wait", "60s") }()
	x.container("late", "late", nil, "0.0.0.0:81")
	if got := compared(t, <-done); got != "" {
		t.Errorf("with --wait: %q", got)
	}
	x.watch.Marker(t, web, markerPort)
	if list := harness.Run(t, environment, "events", "--drift", "missing,uncovered", "--format", "json"); list.Status != 0 || !strings.Contains(list.Stdout, `"drift":"uncovered"`) {
		t.Errorf("events --drift: status %d\n%s%s", list.Status, list.Stdout, list.Stderr)
	}
}

// compared returns the kinds of drift of a report, which the exit status has to fit.
func compared(t *testing.T, r harness.Result) string {
	t.Helper()
	var report struct{ Drifts []model.DriftPeriod }
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("%v: status %d\n%s%s", err, r.Status, r.Stdout, r.Stderr)
	}
	var kinds []string
	for _, d := range report.Drifts {
		kinds = append(kinds, string(d.Drift))
	}
	if want := min(len(kinds), 1); r.Status != want {
		t.Errorf("status %d with %d drifts\n%s", r.Status, len(kinds), r.Stderr)
	}
	return strings.Join(kinds, " ")
}

// TestWrongExpectations: a file that is wrong stops the start.
func TestWrongExpectations(t *testing.T) {
	harness.Require(t)
	path := filepath.Join(t.TempDir(), "expected.yaml")
	if err := os.WriteFile(path, []byte("version: 1\nexpect:\n  - target: web\n    port: 80\n    exposure: public\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := harness.Run(t, []string{harness.StateOf(t), "PORTWATCHER_LOG_LEVEL=error"}, "run", "--expect", path, "--health-socket=", "--listen=")
	if problem := harness.OneLine(r.Stderr, path+":5: exposure", `"public"`, "loopback, network, lan, published, host"); r.Status != 2 || problem != "" {
		t.Errorf("status %d: %s", r.Status, problem)
	}
}
