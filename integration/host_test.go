package integration

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
)

// The host's own ports are reported beside those of the containers: without a container, and
// with the one that publishes them.
func TestHost(t *testing.T) { eachSource(t, hostPorts) }

func hostPorts(t *testing.T, source string) {
	state := t.TempDir() + "/portwatcher.db"
	watch := harness.StartWatch(t, harness.WatchSpec{State: state, Host: true, Arguments: []string{"--source", source}})

	// A process of the host: this one.
	own, number := listenOnHost(t, "127.0.0.1:0")
	wide, wideNumber := listenOnHost(t, "0.0.0.0:0")
	for port, want := range map[int]model.Exposure{number: model.Loopback, wideNumber: model.Host} {
		e := watch.WaitEvent(t, 0, harness.Match{Type: model.Opened, Container: model.HostName, Protocol: "tcp", Port: port})
		if e.Exposure != want || *e.Outside != (want == model.Host) || len(e.Processes) == 0 || e.Processes[0].PID != os.Getpid() {
			t.Errorf("want it %s, of process %d: %s", want, os.Getpid(), e.Line)
		}
	}
	closeNow(t, own)
	watch.WaitEvent(t, 0, harness.Match{Type: model.Closed, Container: model.HostName, Port: number})

	// A container in the host's namespace keeps its ports.
	guest := start(t, "guest", 1, []string{"--network", "host"}, "--tcp", "127.0.0.1:0")
	guests := listening(t, guest, 1)
	watch.WaitOpen(t, guests)

	// The engine's process serves a container.
	web := start(t, "web", 1, []string{"--publish", "127.0.0.1::80"}, "--tcp", "0.0.0.0:80")
	published := harness.Publish(t, web, listening(t, web, 1))
	watch.WaitOpen(t, guests, published)
	at := int(netip.MustParseAddrPort(published[0].Published[0]).Port())
	forwarded := watch.WaitEvent(t, 0, harness.Match{Type: model.Opened, Container: model.HostName, Port: at})
	wantForward(t, forwarded.Forward, web, true, forwarded.Line)

	// A process of the host takes the port that the container publishes.
	proxy, err := os.FindProcess(forwarded.Processes[0].PID)
	if err == nil {
		err = proxy.Signal(syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	watch.WaitEvent(t, forwarded.ID, harness.Match{Type: model.Closed, Container: model.HostName, Port: at})
	rival, _ := listenOnHost(t, "127.0.0.1:"+itoa(at))
	clash := watch.WaitEvent(t, forwarded.ID, harness.Match{Type: model.Opened, Container: model.HostName, Port: at})
	wantForward(t, clash.Forward, web, false, clash.Line)
	wantListed(t, at, "published for "+web.Name+":80 too")

	web.Do(t, "rm", "--force")
	ended := watch.WaitEvent(t, clash.ID, harness.Match{Type: model.Changed, Container: model.HostName, Port: at})
	if ended.Change != model.ChangeForward || ended.Forward != nil {
		t.Errorf("want a change of the forward to none: %s", ended.Line)
	}
	wantForward(t, ended.PreviousForward, web, false, ended.Line)
	if open := hostPortAt(t, state, ended.Time.Add(-time.Nanosecond), at); open == nil {
		t.Errorf("before its change, %d is not open by the journal", at)
	} else {
		wantForward(t, open.Forward, web, false, "ports --at")
	}

	// A restart reports only what changed meanwhile.
	watch.Stop(t, syscall.SIGTERM)
	closeNow(t, rival)
	again := harness.StartWatch(t, harness.WatchSpec{State: state, Host: true, Arguments: []string{"--source", source}, After: watch})
	away := again.WaitEvent(t, ended.ID, harness.Match{Type: model.Closed, Container: model.HostName, Port: at})
	if away.Source != model.SourceRestart {
		t.Errorf("want it closed while portwatcher was away: %s", away.Line)
	}
	again.Stop(t, syscall.SIGTERM)
	without := harness.StartWatch(t, harness.WatchSpec{State: state, Arguments: []string{"--source", source}, After: again})
	gap := without.WaitEvent(t, away.ID, harness.Match{Type: model.Gap})
	for !strings.Contains(gap.Reason, "the host's own ports") {
		gap = without.WaitEvent(t, gap.ID, harness.Match{Type: model.Gap})
	}
	without.Stop(t, syscall.SIGTERM)
	if open := hostPortAt(t, state, time.Now(), wideNumber); open != nil {
		t.Errorf("without --host %d is open by the journal: %v", wideNumber, open)
	}
	closeNow(t, wide)
}

func listenOnHost(t *testing.T, address string) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test has closed it
	return l, l.Addr().(*net.TCPAddr).Port
}

func closeNow(t *testing.T, l net.Listener) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantForward(t *testing.T, f *model.Forward, c *harness.Container, engine bool, where string) {
	t.Helper()
	if f == nil || f.Container.ID != c.ID || f.Container.Name != c.Name || f.Port != 80 || f.Engine != engine {
		t.Errorf("want a forward to %s:80, by the engine: %t: %s", c.Name, engine, where)
	}
}

// wantListed checks a line of the table of ports.
func wantListed(t *testing.T, port int, want string) {
	t.Helper()
	result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + harness.Pattern(t)}, "ports", "--host")
	for line := range strings.Lines(result.Stdout) {
		if strings.HasPrefix(line, model.HostName) && strings.Contains(line, " "+itoa(port)+"/tcp ") && strings.Contains(line, want) {
			return
		}
	}
	t.Errorf("no line of the host's port %d has %q:\n%s%s", port, want, result.Stdout, result.Stderr)
}

// hostPortAt returns a port of the host that was open by the journal, nil where it was not.
func hostPortAt(t *testing.T, state string, at time.Time, port int) *model.Open {
	t.Helper()
	result := harness.Run(t, []string{"PORTWATCHER_STATE=" + state, "MONITOR_CONTAINERS=" + model.HostName},
		"ports", "--format", "json", "--at", harness.Stamp(at))
	var open []model.Open
	if err := json.Unmarshal([]byte(result.Stdout), &open); err != nil {
		t.Fatalf("%v: %s%s", err, result.Stdout, result.Stderr)
	}
	for i := range open {
		if open[i].Container != nil {
			t.Errorf("a container's port among those of the host: %v", open[i])
		}
		if int(open[i].Port) == port {
			return &open[i]
		}
	}
	return nil
}
