package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/testutil/truth"
)

// twoPorts returns the facts of two ports, of which the second opens before the first closes, and
// events report them as eBPF does.
func twoPorts() (facts []truth.Fact, events []*model.Event) {
	begin := time.Now().UTC().Add(-time.Minute)
	for i, action := range []truth.Action{truth.Opened, truth.Opened, truth.Closed, truth.Closed} {
		at := begin.Add(time.Duration(i) * 10 * time.Millisecond)
		f := truth.Fact{Action: action, Time: at, After: at.Add(time.Millisecond), Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(81 + i%2), PID: 7}
		e := &model.Event{ID: uint64(i + 1), Time: at.Add(time.Microsecond), Type: model.Type(action)}
		e.Host, e.Container = "node1", &model.ContainerRef{ID: strings.Repeat("d", 64), Name: "demo"}
		e.Protocol, e.Address, e.Port = f.Protocol, f.Address, f.Port
		e.Processes = []model.Process{{PID: 4007, ContainerPID: 7, Name: "workload"}}
		e.Source = model.SourceEBPF
		e.SetReach(model.Network, nil)
		if action == truth.Closed {
			e.OpenedAt, e.OpenSeconds = begin, new(1.0)
		}
		facts, events = append(facts, f), append(events, e)
	}
	return facts, events
}

// written is a log in the words of the package that writes it.
func written(format output.Format, events ...*model.Event) string {
	var log []byte
	for _, e := range events {
		log = output.AppendEvent(log, format, e)
	}
	return string(log)
}

func TestParseLogReadsWhatIsWritten(t *testing.T) {
	_, events := twoPorts()
	changed, other, burst := *events[1], *events[0], *events[0]
	changed.Type = model.Changed
	gap := &model.Event{ID: 6, Type: model.Gap, Listener: model.Listener{Container: events[0].Container}, Reason: "overrun"}
	burst.Type, burst.Burst = model.Bursts, &model.Burst{Opened: 4, Closed: 4, Ports: []uint16{83}, PortCount: 1}
	other.Container = &model.ContainerRef{Name: "other"}
	events[0].Address, events[0].IPv6Only = netip.IPv6Unspecified(), true
	want := []logLine{lineOf(events[0]), lineOf(events[1]), lineOf(events[2]), lineOf(events[3]), lineOf(&changed)}
	for _, format := range []output.Format{output.Text, output.JSON} {
		log := "a line of something else\n" + written(format, append(events, &changed, gap, &burst, &other)...)
		if got, err := parseLog(log, "demo"); err != nil || !slices.EqualFunc(got, want, logLine.same) {
			t.Errorf("%s: %v, %v; want %v", format, got, err, want)
		}
	}
}

// fakeDocker puts a docker command that answers with these texts first in PATH.
func fakeDocker(t *testing.T, facts, events, log, inspection string) {
	t.Helper()
	folder := t.TempDir()
	print := func(text string) string { return "cat <<'E'\n" + strings.TrimSuffix(text, "\n") + "\nE\n" }
	script := "#!/bin/sh\ncase \"$*\" in\n" +
		"*/workload*) " + print(facts) + ";;\n" +
		"*'/portwatcher events'*) " + print(events) + ";;\n" +
		"logs*portwatcher) " + print(log) + ";;\n" +
		"*inspect*) " + print(inspection) + ";;\nesac\n"
	if err := os.WriteFile(filepath.Join(folder, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
}

// A verification compares the facts with the journal and with the log.
func TestCheck(t *testing.T) {
	facts, events := twoPorts()
	var lines strings.Builder
	for _, f := range facts {
		line, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", line)
	}
	journal, log := written(output.JSON, events...), written(output.Text, events...)
	for name, test := range map[string]struct{ journal, log, want string }{
		"all is right":         {journal, log, ""},
		"another port":         {journal, strings.ReplaceAll(log, "82/tcp", "83/tcp"), "where the journal has"},
		"one line less":        {journal, log[:strings.LastIndex(strings.TrimSpace(log), "\n")+1], "(in the log)"},
		"one line more":        {journal, log + log, "(in the journal)"},
		"another order":        {journal, strings.NewReplacer("81/tcp", "82/tcp", "82/tcp", "81/tcp").Replace(log), "where the journal has"},
		"the journal is short": {journal[:strings.LastIndex(strings.TrimSpace(journal), "\n")+1], log, "missing: closed 82/tcp"},
	} {
		fakeDocker(t, lines.String(), test.journal, test.log, `{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}`)
		v := &verification{demo: &demo{engine: &docker.Engine{}, watcher: "portwatcher", container: "demo"}, settle: time.Millisecond}
		r, err := v.check(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := fmt.Sprint(r.Problems); (got == "[]") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s; want %q", name, got, test.want)
		}
		if test.want == "" && (r.Reports != 4 || r.Processes != 4 || r.Exposures != 4) {
			t.Errorf("%s: %+v; want 4 of all compared", name, r)
		}
	}
}

func TestExposureOfAnInspection(t *testing.T) {
	for _, test := range []struct {
		inspection, address string
		want                model.Exposure
	}{
		{`{"HostConfig":{"NetworkMode":"shop_default"},"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}}`, "0.0.0.0", model.Network},
		{`{"HostConfig":{"NetworkMode":"shop_default"},"NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.18.0.2"}}}}`, "127.0.0.1", model.Loopback},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":[{"HostPort":"8080"}]}}}`, "::", model.Published},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}},"Ports":{"80/tcp":null}}}`, "0.0.0.0", model.Network},
		{`{"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}`, "172.17.0.2", ""},
		{`{"HostConfig":{"NetworkMode":"host"},"NetworkSettings":{"Networks":{"host":{}}}}`, "0.0.0.0", model.Host},
		{`{"HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{"none":{}}}}`, "0.0.0.0", model.Loopback},
		{`{"HostConfig":{"NetworkMode":"container:5f"}}`, "0.0.0.0", ""},
	} {
		var n networking
		if err := json.Unmarshal([]byte(test.inspection), &n); err != nil {
			t.Fatal(err)
		}
		at := model.Endpoint{Protocol: model.TCP, Address: netip.MustParseAddr(test.address), Port: 80}
		if got := n.exposure(at); got != test.want {
			t.Errorf("%s on %s: %q, want %q", test.inspection, test.address, got, test.want)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	for setting, want := range map[string]string{
		"PORT=0": "PORT=0: want a whole number from 1 to 65535", "BURST_COUNT=many": "BURST_COUNT=many", "HOLD_MS=-1": "HOLD_MS=-1",
		"BASE_PORT=65530": "the last port is 65549", "INTERVAL_S=soon": "INTERVAL_S=soon: want seconds",
	} {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
		if _, err := readSettings(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", setting, err, want)
		}
		t.Setenv(name, "")
	}
}
