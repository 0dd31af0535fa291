package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// written is a log in the words of the program that writes it.
func written(t *testing.T, format output.Format, events ...*model.Event) string {
	t.Helper()
	var log bytes.Buffer
	for _, e := range events {
		if _, err := log.Write(output.AppendEvent(nil, format, e)); err != nil {
			t.Fatal(err)
		}
	}
	return log.String()
}

func TestParseLogReadsWhatIsWritten(t *testing.T) {
	_, events := twoPorts()
	changed := told(5, happened("changed", 82, 20))
	gap := &model.Event{ID: 6, Time: begin, Type: model.Gap, Listener: model.Listener{Container: events[0].Container}, Reason: "overrun"}
	burst := told(8, happened(string(model.Bursts), 83, 20))
	burst.Burst = &model.Burst{Opened: 4, Closed: 4, First: begin, Last: begin, Ports: []uint16{83}, PortCount: 1}
	other := told(7, happened(actionOpened, 1, 0))
	other.Container = &model.ContainerRef{Name: "other"}
	events[0].Address, events[0].IPv6Only = netip.IPv6Unspecified(), true
	want := []report{reportOf(events[0]), reportOf(events[1]), reportOf(events[2]), reportOf(events[3]), reportOf(changed)}
	for _, format := range []output.Format{output.Text, output.JSON} {
		log := "a line of something else\n" + written(t, format, append(events, changed, gap, burst, other)...)
		if got, err := parseLog(strings.NewReader(log), "demo"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", format, got, err, want)
		}
	}
}

func TestCompareLog(t *testing.T) {
	facts, events := twoPorts()
	var whole []report
	for _, e := range events {
		whole = append(whole, reportOf(e))
	}
	own := report{actionOpened, "udp", "0.0.0.0", 5353} // of the container itself
	for _, test := range []struct {
		name           string
		log            []report
		missing, wrong int
	}{
		{"the same", append([]report{own}, whole...), 0, 0},
		{"one less", whole[:3], 1, 0},
		{"one more", append(slices.Clone(whole), whole[0]), 1, 0},
		{"another order", []report{whole[1], whole[0], whole[2], whole[3]}, 0, 1},
	} {
		c := &comparison{}
		c.compareLog(&truth{container: "demo", facts: facts}, test.log, events)
		if len(c.missing) != test.missing || len(c.wrong) != test.wrong {
			t.Errorf("%s: missing %v, wrong %v; want %d, %d", test.name, c.missing, c.wrong, test.missing, test.wrong)
		}
	}
}

// fakeEngine is what the Docker command of a test answers.
type fakeEngine struct {
	facts      string // of exec /workload
	events     string // of exec /portwatcher events
	log        string // of logs portwatcher
	inspection string
	arguments  string // file to which those of exec /workload go
}

func fakeDocker(t *testing.T, e fakeEngine) dockerCommand {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker")
	if e.arguments == "" {
		e.arguments = "/dev/null"
	}
	here := func(text string) string { return "cat <<'E'\n" + text + "\nE\n" }
	script := "#!/bin/sh\ncase \"$*\" in\n" +
		"*/workload*) echo \"$*\" >>" + e.arguments + "; " + here(strings.TrimSuffix(e.facts, "\n")) + ";;\n" +
		"*'/portwatcher events'*) " + here(strings.TrimSuffix(e.events, "\n")) + ";;\n" +
		"logs*portwatcher) " + here(e.log) + ";;\n" +
		"*StartedAt*) echo 2026-11-22T18:36:00Z ;;\n" +
		"inspect*) " + here(e.inspection) + ";;\nesac\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dockerCommand(path)
}

func TestVerifyComparesFactsJournalAndLog(t *testing.T) {
	facts, events := twoPorts()
	var told []byte
	for _, f := range facts {
		line, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		told = append(append(told, line...), '\n')
	}
	const bridge = `{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}`
	for _, source := range []model.Source{model.SourceEBPF, model.SourceProc} {
		for _, e := range events {
			e.Source = source
		}
		journal, log := written(t, output.JSON, events...), written(t, output.Text, events...)
		arguments := filepath.Join(t.TempDir(), "arguments")
		v := &verification{
			docker:  fakeDocker(t, fakeEngine{string(told), journal, log, bridge, arguments}),
			watcher: "portwatcher", target: "demo", settle: time.Millisecond,
		}
		c, err := v.check(t.Context(), []string{"transient", "--hold", "50ms"}, false)
		if err != nil || len(c.problems(v.limit)) > 0 || c.reports != 4 || c.processes != 4 || c.exposures != 4 {
			t.Errorf("%s: %+v, %v; want nothing missing or wrong, all compared", source, c, err)
		}
		ran, err := os.ReadFile(arguments)
		if err != nil {
			t.Fatal(err)
		}
		// What /proc alone does not see is not asked of it.
		hold := map[model.Source]string{model.SourceEBPF: "--hold 50ms", model.SourceProc: "--hold 1.5s"}[source]
		if !strings.Contains(string(ran), hold) || (v.remark != "") != (source == model.SourceProc) {
			t.Errorf("%s: ran %q, remark %q; want %s", source, ran, v.remark, hold)
		}
		v.docker = fakeDocker(t, fakeEngine{string(told), journal, strings.ReplaceAll(log, "82/tcp", "83/tcp"), bridge, ""})
		if c, err = v.check(t.Context(), []string{"transient"}, false); err != nil || len(c.problems(v.limit)) == 0 {
			t.Errorf("%s: %+v, %v; want the log found wrong", source, c, err)
		}
	}
}

func TestHoldLonger(t *testing.T) {
	for given, want := range map[string]string{
		"burst --hold 50ms --interval 0.01s": "burst --hold 1.5s --interval 0.01s",
		"http --port 1 --for 2s":             "http --port 1 --for 2s",
		"http --port 1":                      "http --port 1",
	} {
		got, changed := holdLonger(strings.Fields(given))
		if strings.Join(got, " ") != want || changed != (given != want) {
			t.Errorf("%s: %v, changed %v; want %s", given, got, changed, want)
		}
	}
}

func TestShorten(t *testing.T) {
	if got, want := shorten(strings.Fields("a b c d e f g")), "a; b; c; d; e; and 2 more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
