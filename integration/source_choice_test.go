package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// eBPF goes away while portwatcher runs: what is open stays open, the rest is
// reported all the same, one line is logged, and it comes back by itself.
func TestFallBack(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	watch := harness.StartWatch(t, harness.WatchSpec{})
	container := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:81")
	open := listening(t, container, 2)
	watch.WaitOpen(t, open)
	expectSource(t, watch, container, "before", ebpf, ebpf)
	if watch.DetachLinks(t) == 0 {
		t.Fatal("portwatcher holds no link to a cgroup")
	}
	// It may be noticed late, but what lasts is reported.
	late := container.Exec(t, "listen", "--udp", "0.0.0.0:82")
	watch.WaitLog(t, "level=warning", "eBPF", "stopped")
	watch.WaitEvent(t, 0, harness.Opened(container.Name, "udp", "0.0.0.0", 82))
	late.Stop(t)
	watch.WaitEvent(t, 0, harness.Closed(container.Name, "udp", "0.0.0.0", 82))
	expectSource(t, watch, container, "without", "sock_diag", "destroy")
	watch.WaitLog(t, "level=info", "eBPF", "again")
	expectSource(t, watch, container, "after", ebpf, ebpf)

	watch.WaitOpen(t, open)
	// What was short-lived meanwhile may be missing.
	gaps := slices.DeleteFunc(watch.Events(harness.Match{Type: "gap"}), func(e truth.Event) bool {
		return !strings.Contains(e.Reason, "eBPF has stopped") // the others are of other tests' containers
	})
	if len(gaps) != 1 {
		t.Errorf("%d gaps, want the one of eBPF: %v", len(gaps), gaps)
	}
	watch.Expect(t, 1, harness.Match{Port: 80})
	watch.Expect(t, 1, harness.Match{Port: 81})
	watch.Expect(t, 2, harness.Match{Port: 82})
	for _, line := range []string{"stopped working", "works again"} {
		if count := watch.Logs("eBPF", line); count != 1 {
			t.Errorf("%d log lines that eBPF %s, want 1", count, line)
		}
	}
}

// expectSource opens and closes a port, until it is reported by these sources: a watch that
// has just changed them may need a moment.
func expectSource(t *testing.T, watch *harness.Watch, container *harness.Container, when string, opened, closed model.Source) {
	t.Helper()
	for port := 1000; ; port++ {
		watch.Marker(t, container, port)
		first := watch.WaitEvent(t, 0, harness.Opened(container.Name, "tcp", "127.0.0.1", port))
		last := watch.WaitEvent(t, first.ID, harness.Closed(container.Name, "tcp", "127.0.0.1", port))
		if first.Source == opened && last.Source == closed {
			return
		}
		if port == 1005 {
			t.Fatalf("%s: want the sources %s and %s: %s %s", when, opened, closed, first.Line, last.Line)
		}
	}
}

// A source that is forced and cannot work is an error at the start, which names what to do.
func TestForcedSource(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for name, test := range map[string]struct {
		rights []string
		texts  string
	}{
		"no SYS_ADMIN": {without("SYS_ADMIN"), "SYS_ADMIN"},
		"no cgroups":   {without("/sys/fs/cgroup"), "cgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idle(t, "web")
			result := harness.RunInContainer(t, test.rights, "run", "--source", ebpf)
			if result.Status != 1 || result.Stdout != "" {
				t.Errorf("exit status %d, want 1; standard output %q", result.Status, result.Stdout)
			}
			if problem := harness.OneLine(errorLine(result.Stderr), test.texts); problem != "" {
				t.Error(problem)
			}
			if result := harness.RunInContainer(t, test.rights, "check", "--source", ebpf); result.Status != 1 {
				t.Errorf("check: exit status %d, want 1: %s%s", result.Status, result.Stdout, result.Stderr)
			}
		})
	}
	result := harness.Run(t, nil, "run", "--source", "lsof")
	if problem := harness.OneLine(result.Stderr, "--source", "lsof", "auto", ebpf, netlink, proc); problem != "" || result.Status != 2 {
		t.Errorf("an unknown source: exit status %d, want 2; %s", result.Status, problem)
	}
}

// In a sandbox that allows neither eBPF nor sock_diag, /proc is used, and the other sources,
// where they are forced, name the reason why they cannot work.
func TestSandbox(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	rights := append(slices.Clone(harness.Rights), "--security-opt=seccomp="+sandbox(t))
	watch := harness.StartWatch(t, harness.WatchSpec{InContainer: true, Rights: rights})
	container := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "127.0.0.1:81")
	open := listening(t, container, 2)
	watch.WaitOpen(t, open)
	watch.Marker(t, container, 1000)
	watch.WaitOpen(t, open)
	for _, event := range watch.Events(harness.Match{}) {
		if event.Source != proc {
			t.Errorf("want source proc: %s", event.Line)
		}
	}
	for _, source := range []string{ebpf, netlink} {
		result := harness.RunInContainer(t, rights, "run", "--source", source)
		if problem := harness.OneLine(errorLine(result.Stderr)); problem != "" || result.Status != 1 || result.Stdout != "" {
			t.Errorf("--source %s: exit status %d, want 1; %s", source, result.Status, problem)
		}
	}
}

// sandbox writes a seccomp profile that refuses bpf(2) and sockets of
// NETLINK_SOCK_DIAG. Source: https://docs.docker.com/engine/security/seccomp/.
func sandbox(t *testing.T) string {
	t.Helper()
	profile := fmt.Sprintf(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		{"names": ["bpf"], "action": "SCMP_ACT_ERRNO"},
		{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [
			{"index": 0, "value": %d, "op": "SCMP_CMP_EQ"},
			{"index": 2, "value": %d, "op": "SCMP_CMP_EQ"}]}]}`, unix.AF_NETLINK, unix.NETLINK_SOCK_DIAG)
	path := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(path, []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// errorLine is the line of standard error that is no log.
func errorLine(stderr string) (line string) {
	for text := range strings.Lines(stderr) {
		if strings.HasPrefix(text, "portwatcher: ") {
			line += text
		}
	}
	return line
}

// Where the host's pid namespace is not shared, its /proc can be mounted
// instead, for every source.
func TestProcRoot(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	rights := append(without("--pid=host"), "--volume=/proc:/host/proc:ro")
	for _, source := range []string{"auto", ebpf, netlink, proc} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			watch := harness.StartWatch(t, harness.WatchSpec{
				InContainer: true, Rights: rights, Arguments: []string{"--proc-root", "/host/proc", "--source", source},
			})
			container := start(t, "web", 2, []string{"--user", "4321:4321"}, "--tcp", "0.0.0.0:8080", "--udp", "0.0.0.0:8081")
			open := listening(t, container, 2)
			watch.WaitOpen(t, open)
			watch.Marker(t, container, 2000)
			watch.WaitOpen(t, open)
		})
	}
}

// WATCH_PORTS selects what is reported, however short it lives.
func TestWatchPorts(t *testing.T) {
	eachSource(t, func(t *testing.T, source string) {
		watch := harness.StartWatch(t, harness.WatchSpec{
			Environment: []string{"WATCH_PORTS=80, 8000-8100 1000"}, Arguments: []string{"--source", source},
		})
		container := start(t, "web", 7, nil, "--tcp", "0.0.0.0:79,0.0.0.0:80,0.0.0.0:7999,0.0.0.0:8000,0.0.0.0:8101",
			"--udp", "0.0.0.0:8100,0.0.0.0:81")
		var open []harness.Listener
		for _, listener := range listening(t, container, 7) {
			if listener.Port == 80 || listener.Port >= 8000 && listener.Port <= 8100 {
				open = append(open, listener)
			}
		}
		watch.WaitOpen(t, open)
		container.Facts(t, "burst", "--count", "10", "--base-port", "30000")
		container.Facts(t, "listen", "--mptcp=false", "--listen-without-bind", "--tcp", "0.0.0.0:0", "--for", "1ms")
		watch.Marker(t, container, 1000)
		watch.Expect(t, 3+1, harness.Match{Type: "opened"})
		watch.Expect(t, 3+2, harness.Match{})
		for _, listener := range open {
			watch.Expect(t, 1, harness.Opened(container.Name, listener.Protocol, listener.Address, listener.Port))
		}
	})
}

// The settings of the shell tool: bursts of scans see what single ones at the
// same interval cannot, and change nothing where the kernel reports each.
func TestBurstScans(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for name, test := range map[string]struct {
		environment []string
		source      model.Source // of what opens
	}{
		"proc":    {[]string{"USE_PROC=1"}, proc},
		"netlink": {[]string{"PORTWATCHER_SOURCE=netlink", "USE_PROC=0"}, "sock_diag"},
		"ebpf":    {[]string{"PORTWATCHER_SOURCE=ebpf"}, ebpf},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == ebpf {
				requireEBPF(t)
			}
			// Bursts of 100 scans, each until the next one begins.
			watch := harness.StartWatch(t, harness.WatchSpec{Environment: append(test.environment,
				"SCAN_INTERVAL=3", "BURST_SCANS=100", "BURST_DELAY=0.03", "CLOSE_GRACE_MS=0")})
			container := watched(t, watch, "burst")
			// All within one interval: single scans would see half of them at most.
			facts := container.Facts(t, "burst", "--count", "10", "--base-port", "20000", "--hold", "1s", "--interval", "200ms")
			reports(t, watch, container, facts, truth.Complete)
			for _, event := range watch.Events(harness.Match{Type: "opened", Container: container.Name, Address: "0.0.0.0"}) {
				if event.Source != test.source || event.Transient {
					t.Errorf("want source %s and no transient: %s", test.source, event.Line)
				}
			}
			for _, setting := range []string{"USE_PROC", "SCAN_INTERVAL", "BURST", "CLOSE_GRACE"} {
				if count := watch.Logs(setting); count != 0 {
					t.Errorf("%d log lines about %s, want none", count, setting)
				}
			}
		})
	}
}
