package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/output"
	"portwatcher/internal/port"
)

func testEvent(kind port.Type, container string) *port.Event {
	seconds := 1.5
	e := &port.Event{ID: 1, Time: time.Now(), Type: kind}
	e.Container = &port.ContainerRef{ID: "1", Name: container}
	e.Protocol, e.Address, e.Port = port.TCP, netip.MustParseAddr("0.0.0.0"), 8080
	e.Processes = []port.Process{{PID: 7, Name: "workload"}}
	if kind == port.Closed {
		e.OpenSeconds = &seconds
	}
	return e
}

// The log is read in the words of the program that writes it, in both formats.
func TestParseReportsReadsWhatIsWritten(t *testing.T) {
	for _, format := range []output.Format{output.Text, output.JSON} {
		var log bytes.Buffer
		for _, e := range []*port.Event{
			testEvent(port.Opened, "demo"), testEvent(port.Closed, "demo"),
			testEvent(port.Gap, "demo"), testEvent(port.Opened, "other"),
		} {
			if e.Type == port.Gap {
				e.Port = 0
			}
			if e.Container.Name == "other" {
				e.Port = 1
			}
			if err := output.WriteEvent(&log, format, e); err != nil {
				t.Fatal(err)
			}
		}
		seen, err := parseReports(&log, "demo")
		if err != nil {
			t.Fatal(err)
		}
		want := expected([]fact{
			{Action: actionOpened, Protocol: "tcp", Address: "0.0.0.0", Port: 8080},
			{Action: actionClosed, Protocol: "tcp", Address: "0.0.0.0", Port: 8080},
		})
		if missing := absent(want, seen); len(missing) > 0 {
			t.Errorf("%s: missing %v", format, missing)
		}
		if seen[report{actionOpened, "tcp", "0.0.0.0", 1}] {
			t.Errorf("%s: another container's event was counted", format)
		}
	}
}

// fakeDocker is a Docker command whose exec prints the facts and whose logs
// prints the log.
func fakeDocker(t *testing.T, facts, log string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker")
	script := "#!/bin/sh\ncase $1 in exec) cat <<'E'\n" + facts + "\nE\n;; logs) cat <<'E'\n" + log + "\nE\n;; esac\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVerifyComparesFactsAndLog(t *testing.T) {
	facts := `{"action":"opened","protocol":"tcp","address":"0.0.0.0","port":8080,"pid":7}
{"action":"closed","protocol":"tcp","address":"0.0.0.0","port":8080,"pid":7}`
	opened := output.EventText(testEvent(port.Opened, "demo"))
	closed := output.EventText(testEvent(port.Closed, "demo"))
	for _, test := range []struct {
		name, log string
		missing   int
	}{
		{"all reported", opened + "\n" + closed, 0},
		{"no closing", opened, 1},
		{"nothing", "", 2},
		{"of another container", strings.ReplaceAll(opened+"\n"+closed, "demo", "other"), 2},
	} {
		v := &verification{docker: fakeDocker(t, facts, test.log), watcher: "portwatcher", target: "demo"}
		missing, err := v.check(t.Context(), []string{"transient"}, false)
		if err != nil || len(missing) != test.missing {
			t.Errorf("%s: missing %v, %v; want %d", test.name, missing, err, test.missing)
		}
	}
}
