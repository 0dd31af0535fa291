package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// waitReach waits for the next change of who can reach a port, and checks what it is and
// was. It returns the event.
func waitReach(t *testing.T, watch *harness.Watch, after uint64, c *harness.Container, port int, was, is model.Exposure) truth.Event {
	t.Helper()
	e := watch.WaitEvent(t, after, harness.Match{Type: model.Changed, Container: c.Name, Port: port})
	if e.Change != model.ChangeExposure || e.PreviousExposure != was || e.Exposure != is {
		t.Fatalf("want a change of the exposure from %s to %s: %s", was, is, e.Line)
	}
	return e
}

// wantReachAt checks who could reach the only port that was open, by the journal.
func wantReachAt(t *testing.T, state string, at time.Time, want model.Exposure, published []string) {
	t.Helper()
	open, messages := harness.PortsAt(t, state, harness.Stamp(at))
	if len(open) != 1 || open[0].Exposure != string(want) || !slices.Equal(open[0].Published, published) {
		t.Errorf("at %v open were %v, want one that is %s %q; %s", at, open, want, published, messages)
	}
}

// ip runs a command of ip(8) on the host, or in the namespace of a container.
func ip(t *testing.T, c *harness.Container, command string) {
	t.Helper()
	arguments := append([]string{"ip"}, strings.Fields(command)...)
	if c != nil {
		arguments = append([]string{"nsenter", "--net", "--target", itoa(c.PID)}, arguments...)
	}
	if output, err := exec.Command(arguments[0], arguments[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(arguments, " "), err, output)
	}
}

// reaches reports whether the host can connect to a TCP port from one of its addresses. Some
// networks answer for every address: the host's shows that the way is the right one.
func reaches(from, to string) bool {
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", to)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// The owner of a shared namespace dies and starts again, as a VPN container does: the engine
// takes its interface away, and those that used it are left with loopback.
func TestReachAfterTheDeathOfTheOwner(t *testing.T) { eachSource(t, deathOfTheOwner) }

// watchInto starts portwatcher with a source, and a journal in a file of its own.
func watchInto(t *testing.T, source string) (state string, watch *harness.Watch) {
	t.Helper()
	state = filepath.Join(t.TempDir(), "portwatcher.db")
	return state, harness.StartWatch(t, harness.WatchSpec{State: state, Arguments: []string{"--source", source}})
}

func deathOfTheOwner(t *testing.T, source string) {
	state, watch := watchInto(t, source)
	vpn := idle(t, "vpn", "--publish", "80")
	app := start(t, "app", 1, []string{"--network", "container:" + vpn.Name}, "--tcp", "0.0.0.0:80")
	published := harness.Publish(t, vpn, listening(t, app, 1))
	watch.WaitOpen(t, published)
	if published[0].Exposure != "published" {
		t.Fatalf("%s: want it published", published[0])
	}

	before := watch.LastID()
	vpn.Do(t, "kill")
	e := waitReach(t, watch, before, app, 80, model.Published, model.Loopback)
	if !slices.Equal(slices.Sorted(slices.Values(e.PreviousPublished)), slices.Sorted(slices.Values(published[0].Published))) || len(e.Published) > 0 {
		t.Errorf("want the published addresses of before, and none: %s", e.Line)
	}
	lonely := listening(t, app, 1) // the kernel has no route there any more
	watch.WaitOpen(t, lonely)

	vpn.Do(t, "start")
	vpn.Refresh(t)
	vpn.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, lonely, listening(t, vpn, 1))
	watch.Expect(t, 1, harness.Match{Type: model.Changed})
	harness.WaitJournal(t, state, lonely, listening(t, vpn, 1))
	wantReachAt(t, state, e.Time.Add(-time.Nanosecond), model.Published, e.PreviousPublished)
	wantReachAt(t, state, e.Time, model.Loopback, nil)
	app.Do(t, "kill")
	if closed := watch.WaitEvent(t, 0, harness.Closed(app.Name, "tcp", "0.0.0.0", 80)); closed.Exposure != model.Loopback {
		t.Errorf("want it closed as loopback: %s", closed.Line)
	}
}

// A network is disconnected and connected again: an event each, and the journal is right at
// each moment.
func TestReachOfADisconnectedNetwork(t *testing.T) { eachSource(t, disconnectedNetwork) }

func disconnectedNetwork(t *testing.T, source string) {
	state, watch := watchInto(t, source)
	web := start(t, "web", 1, []string{"--publish", "80"}, "--tcp", "0.0.0.0:80")
	open := listening(t, web, 1)
	watch.WaitOpen(t, open)
	network := func(verb string) {
		t.Helper()
		harness.Default.MustDocker(t, "network", verb, "bridge", web.ID)
	}
	network("disconnect")
	down := waitReach(t, watch, 0, web, 80, model.Published, model.Loopback)
	if len(down.PreviousPublished) == 0 || *down.Outside || len(down.Processes) == 0 {
		t.Errorf("want what it was before, that no other machine reaches it, and the process: %s", down.Line)
	}
	network("connect")
	up := waitReach(t, watch, down.ID, web, 80, model.Loopback, model.Published)
	again := listening(t, web, 1)
	watch.WaitOpen(t, again)
	watch.Marker(t, web, 1000)
	watch.Expect(t, 2, harness.Match{Type: model.Changed})
	harness.WaitJournal(t, state, again)
	wantReachAt(t, state, down.Time.Add(-time.Nanosecond), model.Published, down.PreviousPublished)
	wantReachAt(t, state, down.Time, model.Loopback, nil)
	wantReachAt(t, state, up.Time.Add(-time.Nanosecond), model.Loopback, nil)
	wantReachAt(t, state, up.Time, model.Published, up.Published)
}

// An interface that was put into the namespace by hand, of which the engine knows nothing.
func TestReachByAnInterfaceOfUnknownOrigin(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	web := start(t, "web", 1, []string{"--network", "none"}, "--tcp", "0.0.0.0:80")
	watch.WaitOpen(t, listening(t, web, 1))
	device := "pwv" + itoa(web.PID)
	host, inside := veth(t, device, web)
	e := waitReach(t, watch, 0, web, 80, model.Loopback, model.Network)
	if !reaches(host, inside+":80") || *e.Outside || e.Source != model.SourceRTNetlink {
		t.Errorf("want that the host at %s reaches it, and other machines do not: %s", host, e.Line)
	}
	watch.WaitOpen(t, listening(t, web, 1))
	list := harness.Run(t, []string{"MONITOR_CONTAINERS=" + harness.Pattern(t)}, "ports")
	if !strings.Contains(list.Stdout, " network ") {
		t.Errorf("want that ports lists it as reached by the network: %s%s", list.Stdout, list.Stderr)
	}
	ip(t, nil, "link del "+device)
	waitReach(t, watch, e.ID, web, 80, model.Network, model.Loopback)
	if reaches(host, inside+":80") {
		t.Error("the host reaches it although the interface has gone")
	}
	watch.Expect(t, 2, harness.Match{Type: model.Changed})
}

// veth connects the host with a container by a pair of interfaces, which are gone after the
// test, and returns both addresses.
func veth(t *testing.T, device string, c *harness.Container) (host, inside string) {
	t.Helper()
	host, inside = pair(c.PID)
	ip(t, nil, fmt.Sprintf("link add %s type veth peer name eth7 netns %d", device, c.PID))
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", device).Run() }) // the test or the end of the container may have done it
	ip(t, nil, fmt.Sprintf("addr add %s/30 dev %s", host, device))
	ip(t, nil, "link set "+device+" up")
	ip(t, c, "addr add "+inside+"/30 dev eth7")
	ip(t, c, "link set eth7 up")
	return host, inside
}

// pair returns two addresses of a network of their own, of 198.18.0.0/15 (RFC 2544).
func pair(number int) (string, string) {
	net := number % (1 << 15) * 4
	address := func(last int) string { return fmt.Sprintf("198.%d.%d.%d", 18+net>>16, net>>8&255, net&255+last) }
	return address(1), address(2)
}

// macvlan makes a macvlan network on an interface of its own, and returns its name. Both are
// gone after the test.
func macvlan(t *testing.T, suffix string, options ...string) string {
	t.Helper()
	device := fmt.Sprintf("pwm%x", time.Now().UnixNano()&0xffffffff)
	ip(t, nil, fmt.Sprintf("link add %s type veth peer name %sx", device, device))
	t.Cleanup(func() { ip(t, nil, "link del "+device) })
	ip(t, nil, "link set "+device+" up")
	ip(t, nil, "link set "+device+"x up")
	name := harness.Name(t, suffix)
	arguments := slices.Concat([]string{"network", "create", "--driver", "macvlan", "--opt", "parent=" + device}, options, []string{name})
	if output, err := harness.Default.Docker(arguments...); err != nil {
		harness.Unavailable(t, fmt.Sprintf("the engine or the kernel has no macvlan: %v: %s", err, output))
	}
	t.Cleanup(func() { harness.Default.MustDocker(t, "network", "rm", name) })
	return name
}

// On a macvlan network other machines reach a port without publishing, with an address of
// the engine's or another.
func TestReachOnMacvlan(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	watch := harness.StartWatch(t, harness.WatchSpec{})
	first, _ := pair(rand.N(1<<11) << 4)
	network := macvlan(t, "lan", "--subnet", first[:strings.LastIndex(first, ".")]+".0/24")
	web := start(t, "web", 2, []string{"--network", network}, "--tcp", "0.0.0.0:80,127.0.0.1:81")
	e := watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "0.0.0.0", 80))
	if e.Exposure != model.Lan || e.Outside == nil || !*e.Outside {
		t.Errorf("want it opened as lan, reached from outside: %s", e.Line)
	}
	if e = watch.WaitEvent(t, 0, harness.Opened(web.Name, "tcp", "127.0.0.1", 81)); e.Exposure != model.Loopback || *e.Outside {
		t.Errorf("want it opened as loopback: %s", e.Line)
	}
	watch.Expect(t, 0, harness.Match{Type: model.Changed})

	// An address that the engine does not know, as of DHCP, in place of the engine's.
	ip(t, web, "addr flush dev eth0")
	gone := waitReach(t, watch, e.ID, web, 80, model.Lan, model.Loopback)
	ip(t, web, "addr add 198.19.255.9/24 dev eth0")
	waitReach(t, watch, gone.ID, web, 80, model.Loopback, model.Lan)
}

// What is published for the host alone is not reached from outside.
func TestOutside(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state, watch := watchInto(t, "auto")
	web := start(t, "web", 4, []string{"--publish", "127.0.0.1::80", "--publish", "81"}, "--tcp", "0.0.0.0:80,0.0.0.0:81,0.0.0.0:82,127.0.0.1:83")
	open := listening(t, web, 4)
	watch.WaitOpen(t, open)
	for port, outside := range map[int]bool{80: false, 81: true, 82: false, 83: false} {
		e := watch.WaitEvent(t, 0, harness.Match{Type: model.Opened, Container: web.Name, Port: port})
		if e.Outside == nil || *e.Outside != outside {
			t.Errorf("want outside %t: %s", outside, e.Line)
		}
	}
	harness.WaitJournal(t, state, open)
	environment := []string{"PORTWATCHER_STATE=" + state, "MONITOR_CONTAINERS=" + harness.Pattern(t)}
	for _, command := range [][]string{{"ports"}, {"ports", "--at", "now"}, {"events"}} {
		reached := harness.Run(t, environment, append(command, "--format", "json", "--outside")...)
		hidden := harness.Run(t, environment, append(command, "--format", "json", "--outside=false")...)
		if got, other := strings.Count(reached.Stdout, `"exposure"`), strings.Count(hidden.Stdout, `"exposure"`); got != 1 || other != 3 {
			t.Errorf("%v: %d ports are reached from outside and %d are not, want 1 and 3:\n%s%s\n%s%s", command, got, other,
				reached.Stdout, reached.Stderr, hidden.Stdout, hidden.Stderr)
		}
	}
}
