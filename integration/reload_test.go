package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
)

// settingsFile is a configuration file of a running portwatcher.
type settingsFile struct {
	path    string
	watch   *harness.Watch
	reloads int // that were made so far
}

// watchSettings starts portwatcher with a configuration file of these lines.
func watchSettings(t *testing.T, lines ...string) *settingsFile {
	t.Helper()
	f := &settingsFile{path: t.TempDir() + "/config.yaml"}
	f.put(t, lines)
	// Only what neither a flag nor the environment sets comes from the file.
	f.watch = harness.StartWatch(t, harness.WatchSpec{Environment: []string{"MONITOR_CONTAINERS="}, Arguments: []string{"--config", f.path}})
	return f
}

// put replaces the file, as an editor does.
func (f *settingsFile) put(t *testing.T, lines []string) {
	t.Helper()
	fresh := filepath.Join(filepath.Dir(f.path), "fresh")
	if err := os.WriteFile(fresh, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, f.path); err != nil {
		t.Fatal(err)
	}
}

const reloaded = "The settings were reloaded."

// change replaces the file and waits until its settings are in force.
func (f *settingsFile) change(t *testing.T, lines ...string) {
	t.Helper()
	f.put(t, lines)
	f.waitReload(t)
}

// waitReload waits until the settings were reloaded once more.
func (f *settingsFile) waitReload(t *testing.T) {
	t.Helper()
	f.reloads++
	harness.Eventually(t, "the settings are reloaded", func() string {
		if f.watch.Logs(reloaded) < f.reloads {
			return "not yet"
		}
		return ""
	})
	f.reloads = f.watch.Logs(reloaded)
}

// A changed file changes what is watched and reported, without a restart: what
// is from now on is reported as opened, what is not any more is forgotten, of a
// container with a gap, and of the rest nothing is repeated.
func TestReloadFilters(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 3, nil, "--tcp", "0.0.0.0:80,0.0.0.0:81", "--udp", "0.0.0.0:81")
	db := start(t, "db", 2, nil, "--tcp", "0.0.0.0:80,0.0.0.0:82")
	one, both := "monitor_containers: ["+web.Name+"]", "monitor_containers: ["+web.Name+", "+db.Name+"]"
	file := watchSettings(t, one, "watch_ports: 80,1000-1001")
	watch := file.watch
	watch.WaitOpen(t, only(listening(t, web, 3), 80))

	file.change(t, one, "watch_ports: [80, 81/tcp, 1000-1001]")
	watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 81))
	file.change(t, both, "watch_ports: [80, 81/tcp, 1000-1001]")
	watch.WaitEvent(t, 0, harness.Opened(db.Name, "tcp", "0.0.0.0", 80))
	watch.Marker(t, web, 1000)
	watch.Marker(t, db, 1000)
	watch.Expect(t, 1+1+1+2, harness.Match{Type: "opened"})
	watch.Expect(t, 2, harness.Match{Type: "closed"})

	// Less than before.
	file.change(t, "monitor_containers: "+db.Name)
	if gap := watch.WaitEvent(t, 0, harness.Match{Type: "gap", Container: web.Name}); !strings.Contains(gap.Reason, "not monitored any more") {
		t.Errorf("want a gap with the reason why nothing more is reported: %s", gap.Line)
	}
	watch.Forget(harness.Match{Container: web.Name})
	watch.WaitOpen(t, listening(t, db, 2)) // 82 as well: it is in force
	web.Facts(t, "transient", "--port", "1001")
	watch.Marker(t, db, 1001)
	watch.WaitOpen(t, listening(t, db, 2))
	watch.Expect(t, 0, harness.Match{Container: web.Name, Port: 1001})
	watch.Expect(t, 1, harness.Match{Container: db.Name, Port: 80})
	file.change(t, "monitor_containers: "+db.Name, "watch_ports: 1000")
	watch.Forget(harness.Match{Container: db.Name})
	watch.Marker(t, db, 1000)
	watch.WaitOpen(t)

	// And all of it again.
	file.change(t, both)
	watch.WaitOpen(t, listening(t, web, 3), listening(t, db, 2))
	watch.Marker(t, web, 1000)
	watch.Marker(t, db, 1000)
	watch.Expect(t, 2, harness.Match{Container: db.Name, Port: 80})
	watch.Expect(t, 1, harness.Match{Type: "gap"})
}

// only returns those of the listeners that have this port.
func only(listeners []harness.Listener, port int) (chosen []harness.Listener) {
	for _, listener := range listeners {
		if listener.Port == port {
			chosen = append(chosen, listener)
		}
	}
	return chosen
}

// Intervals, the close grace and the log level change at a signal, too, and
// what cannot change without a restart is named.
func TestReloadTuning(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 2, nil, "--tcp", "0.0.0.0:90,0.0.0.0:91")
	monitor := "monitor_containers: " + web.Name
	file := watchSettings(t, monitor, "close_grace: 0s", "watch_ports: 80,1000")
	watch := file.watch
	listens := []string{"listen", "--mptcp=false", "--tcp", "0.0.0.0:80"}
	first := web.Exec(t, listens...)
	watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 80))
	if count := watch.Logs("level=debug"); count != 0 {
		t.Errorf("%d lines of the log are for debugging", count)
	}

	// A port that is reported from now on shows that the rest is in force, too.
	lines := []string{monitor, "close_grace: 1m", "log_level: debug", "watch_ports: 80,90,1000"}
	file.change(t, lines...)
	watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 90))
	first.Stop(t)
	second := web.Exec(t, listens...)
	watch.WaitEvent(t, 0, harness.Match{Type: "changed", Container: web.Name, Port: 80})
	watch.Expect(t, 0, harness.Match{Type: "closed"})
	// The signal reads the file again, whether it has changed or not.
	signal := func() {
		t.Helper()
		if err := syscall.Kill(watch.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		file.waitReload(t)
	}
	signal()
	signal()
	file.put(t, lines) // as it was
	watch.WaitLog(t, "level=debug")
	file.change(t, monitor, "close_grace: 0s")
	watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 91))
	second.Stop(t)
	watch.WaitEvent(t, 0, harness.Closed(web.Name, "tcp", "0.0.0.0", 80))
	watch.Expect(t, 3, harness.Match{Port: 80})

	file.change(t, monitor, "source: proc", "host_name: elsewhere")
	watch.WaitLog(t, "level=warning", "next start", "source", "host-name")
	watch.Marker(t, web, 1000)
	watch.Expect(t, 0, harness.Match{Type: "gap"})
	for _, event := range watch.Events(harness.Match{Port: 1000}) {
		if event.Source == proc || event.Host == "elsewhere" {
			t.Errorf("it has changed without a restart: %s", event.Line)
		}
	}
}

// A file that is wrong is logged, with each line that is, and changes nothing;
// one that is right again takes effect.
func TestReloadBadFile(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80,0.0.0.0:81")
	monitor := "monitor_containers: " + web.Name
	file := watchSettings(t, monitor, "watch_ports: 80,1000")
	watch := file.watch
	watch.WaitOpen(t, only(listening(t, web, 2), 80))
	file.put(t, []string{monitor, "watch_ports: 81", "close_grace: soon", "scan_intervall: 1s"})
	watch.WaitLog(t, "level=error", file.path+":3", "close_grace", "soon")
	watch.WaitLog(t, "level=error", file.path+":4", "scan_intervall", "scan_interval")
	watch.WaitLog(t, "level=error", "old ones stay")
	watch.Marker(t, web, 1000)
	watch.Expect(t, 0, harness.Match{Port: 81})
	if count := watch.Logs(reloaded); count != 0 {
		t.Errorf("wrong settings were loaded %d times", count)
	}
	file.put(t, []string{"watch_ports: [80"})
	watch.WaitLog(t, "level=error", file.path+":", "YAML")
	file.change(t, monitor, "watch_ports: 80-1000")
	watch.WaitOpen(t, listening(t, web, 2))
	watch.Expect(t, 1, harness.Match{Port: 80})
	// At the start the same file is an error of the settings.
	file.put(t, []string{"close_grace: soon"})
	result := harness.Run(t, nil, "run", "--config", file.path)
	if problem := harness.OneLine(result.Stderr, file.path+":1", "close_grace", "soon"); problem != "" || result.Status != 2 {
		t.Errorf("at the start: exit status %d, want 2; %s", result.Status, problem)
	}
}

// A label of the container takes ports out of the report; one that is not
// understood is logged once, and ignored.
func TestIgnoreLabel(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	listens := []string{"--tcp", "0.0.0.0:8999,0.0.0.0:9000,0.0.0.0:9100,0.0.0.0:9101", "--udp", "0.0.0.0:9050"}
	ignoring := start(t, "ignoring", 5, []string{"--label", "portwatcher.ignore=9000-9100/tcp"}, listens...)
	confused := start(t, "confused", 5, []string{"--label", "portwatcher.ignore=http", "--label", "portwatcher.ignored=80"}, listens...)
	var open []harness.Listener
	for _, listener := range listening(t, ignoring, 5) {
		if listener.Port != 9000 && listener.Port != 9100 {
			open = append(open, listener)
		}
	}
	watch := harness.StartWatch(t, harness.WatchSpec{})
	watch.WaitOpen(t, open, listening(t, confused, 5))
	// Live events, too; and ports that are open for a moment.
	ignoring.Facts(t, "transient", "--port", "9001")
	udp := ignoring.Exec(t, "listen", "--udp", "0.0.0.0:9001")
	watch.WaitEvent(t, 0, harness.Opened(ignoring.Name, "udp", "0.0.0.0", 9001))
	udp.Stop(t)
	watch.Marker(t, ignoring, 1000)
	watch.Marker(t, confused, 9002)
	for _, port := range []int{9000, 9100} {
		watch.Expect(t, 0, harness.Match{Container: ignoring.Name, Port: port})
	}
	watch.Expect(t, 0, harness.Match{Container: ignoring.Name, Protocol: "tcp", Port: 9001})
	for _, texts := range [][]string{
		{"level=warning", confused.Name, "portwatcher.ignore", "http"},
		{"level=warning", confused.Name, "portwatcher.ignored", "portwatcher.ignore"},
	} {
		if count := watch.Logs(texts...); count != 1 {
			t.Errorf("%q: logged %d times, want once", texts, count)
		}
	}
	if difference := harness.Difference(openPorts(t, ignoring.Name), open); difference != "" {
		t.Errorf("ports: %s", difference)
	}
}
