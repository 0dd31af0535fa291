package harness

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/model"
)

// Listener is where a container listens, as the kernel shows it and as an event must
// report it. Two are equal if their strings are.
type Listener struct {
	Container string
	Protocol  string
	Address   string
	Port      int
	Exposure  string
	Published []string
	Processes []model.Process
}

// String returns one line with every field.
func (l Listener) String() string {
	var line strings.Builder
	fmt.Fprintf(&line, "%s %s %s port %d %s", l.Container, l.Protocol, l.Address, l.Port, l.Exposure)
	for _, address := range slices.Sorted(slices.Values(l.Published)) {
		fmt.Fprintf(&line, " at %s", address)
	}
	byPID := func(a, b model.Process) int { return cmp.Compare(a.PID, b.PID) }
	for _, process := range slices.SortedFunc(slices.Values(l.Processes), byPID) {
		uid := "unknown"
		if process.UID != nil {
			uid = strconv.Itoa(int(*process.UID))
		}
		fmt.Fprintf(&line, " [pid %d container_pid %d %s %s uid %s]",
			process.PID, process.ContainerPID, process.Name, process.Executable, uid)
	}
	return line.String()
}

// ListenerOf returns what an event, or a list of open ports, reports.
func ListenerOf(l *model.Listener) Listener {
	return Listener{
		Container: l.Container.Name, Protocol: l.Protocol.String(), Address: l.Address.String(), Port: int(l.Port),
		Exposure: string(l.Exposure), Published: l.Published, Processes: l.Processes,
	}
}

// Listening reads what the container's processes listen on from /proc: TCP
// sockets in LISTEN and bound, unconnected UDP sockets (clients too), each with
// every process of the container that holds it. The exposure is that of a
// container in a namespace of its own with no published port; see [Publish].
// A socket held twice over (SO_REUSEPORT) is one listener.
func Listening(t testing.TB, container *Container) []Listener {
	t.Helper()
	holders, network := holders(t, container.ID), hasNetwork(t, container)
	byEndpoint := make(map[string]*Listener)
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		path := fmt.Sprintf("/proc/%d/net/%s", container.PID, table)
		content, err := os.ReadFile(path)
		if os.IsNotExist(err) && strings.HasSuffix(table, "6") {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			t.Fatalf("read what %s listens on: %v\nlog of the container:\n%s", container.Name, err, container.Logs(t))
		}
		for _, row := range strings.Split(strings.TrimSpace(string(content)), "\n")[1:] {
			listener, inode := parseRow(t, strings.TrimSuffix(table, "6"), row)
			if listener == nil || len(holders[inode]) == 0 {
				continue
			}
			listener.Container = container.Name
			if !network {
				listener.Exposure = "loopback"
			}
			key := listener.String()
			if byEndpoint[key] == nil {
				byEndpoint[key] = listener
			}
			known := byEndpoint[key]
			for _, process := range holders[inode] {
				same := func(p model.Process) bool { return p.PID == process.PID }
				if !slices.ContainsFunc(known.Processes, same) {
					known.Processes = append(known.Processes, process)
				}
			}
		}
	}
	var listeners []Listener
	for _, listener := range byEndpoint {
		listeners = append(listeners, *listener)
	}
	for i := range listeners {
		if onlyIPv6(listeners[i], listeners) && !hasIPv6(t, container) {
			listeners[i].Exposure = "loopback"
		}
	}
	return listeners
}

// parseRow reads one row of /proc/net/{tcp,udp}[6]; nil if it listens to nothing.
// Layout: https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.rst.
func parseRow(t testing.TB, protocol, row string) (*Listener, string) {
	t.Helper()
	fields := strings.Fields(row)
	if len(fields) < 10 {
		t.Fatalf("a row of /proc/net/%s has %d fields: %q", protocol, len(fields), row)
	}
	state := map[string]string{"tcp": "0A", "udp": "07"}[protocol]
	if fields[3] != state {
		return nil, ""
	}
	address, port, found := strings.Cut(fields[1], ":")
	octets, err := hex.DecodeString(address)
	if err != nil || !found || len(octets)%4 != 0 {
		t.Fatalf("a row of /proc/net/%s has the address %q: %q", protocol, fields[1], row)
	}
	for word := 0; word < len(octets); word += 4 { // in the order of the CPU
		slices.Reverse(octets[word : word+4])
	}
	ip, _ := netip.AddrFromSlice(octets)
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatalf("a row of /proc/net/%s: %v: %q", protocol, err, row)
	}
	listener := &Listener{Protocol: protocol, Address: ip.Unmap().String(), Port: int(number), Exposure: "network"}
	if ip.Unmap().IsLoopback() {
		listener.Exposure = "loopback"
	}
	return listener, fields[9]
}

// hasNetwork reports whether packets can leave a container's namespace: that of
// one without a network has no route.
func hasNetwork(t testing.TB, container *Container) bool {
	t.Helper()
	routes, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/route", container.PID))
	if err != nil {
		t.Fatalf("read the routes of %s: %v\nlog of the container:\n%s", container.Name, err, container.Logs(t))
	}
	return strings.Count(string(routes), "\n") > 1 // the first line is a heading
}

// hasIPv6 reports whether an interface of a container's namespace, other than lo, has an IPv6
// address.
func hasIPv6(t testing.TB, container *Container) bool {
	t.Helper()
	addresses, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/if_inet6", container.PID))
	if err != nil && !os.IsNotExist(err) {
		t.Fatalf("read the addresses of %s: %v", container.Name, err)
	}
	for line := range strings.Lines(string(addresses)) {
		if !strings.HasSuffix(strings.TrimSpace(line), " lo") {
			return true
		}
	}
	return false
}

// holders returns, by socket inode, the processes of a container that have the socket open.
func holders(t testing.TB, container string) map[string][]model.Process {
	t.Helper()
	holders := make(map[string][]model.Process)
	folders, err := docker.Processes(container)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		process, ok := readProcess(folder)
		if !ok {
			continue // it has ended
		}
		for inode := range sockets(folder) {
			holders[inode] = append(holders[inode], process)
		}
	}
	return holders
}

// sockets returns the inodes of the sockets that a process has open.
func sockets(directory string) map[string]bool {
	inodes := make(map[string]bool)
	descriptors, _ := filepath.Glob(directory + "/fd/*")
	for _, descriptor := range descriptors {
		target, err := os.Readlink(descriptor)
		if err != nil {
			continue // it is closed since
		}
		if inode, found := strings.CutPrefix(target, "socket:["); found {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes
}

// readProcess reads /proc/<pid>/status and exe; false if the process is gone.
func readProcess(directory string) (model.Process, bool) {
	status, err := os.ReadFile(directory + "/status")
	if err != nil {
		return model.Process{}, false
	}
	executable, _ := os.Readlink(directory + "/exe") // a process whose main thread has exited has none
	process := model.Process{Executable: executable}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		values := strings.Fields(value)
		switch name {
		case "Name":
			process.Name = value
		case "Uid":
			uid, _ := strconv.ParseUint(values[1], 10, 32) // the effective one
			process.UID = new(uint32(uid))
		case "NSpid":
			process.PID, _ = strconv.Atoi(values[0])
			process.ContainerPID, _ = strconv.Atoi(values[len(values)-1])
		}
	}
	return process, process.PID != 0
}

// Publish marks those of a container's listeners that the engine forwards to,
// and returns them all. The container has no IPv6 address.
func Publish(t testing.TB, container *Container, listeners []Listener) []Listener {
	t.Helper()
	for i := range listeners {
		port := fmt.Sprintf("%d/%s", listeners[i].Port, listeners[i].Protocol)
		published := container.Published(t, port)
		if len(published) > 0 && listeners[i].Exposure == "network" && !onlyIPv6(listeners[i], listeners) {
			listeners[i].Exposure, listeners[i].Published = "published", published
		}
	}
	return listeners
}

// onlyIPv6 reports whether a listener on the IPv6 wildcard takes no IPv4 traffic,
// which is what the engine forwards: another has the IPv4 wildcard then.
func onlyIPv6(listener Listener, all []Listener) bool {
	return listener.Address == "::" && slices.ContainsFunc(all, func(other Listener) bool {
		return other.Address == "0.0.0.0" && other.Protocol == listener.Protocol && other.Port == listener.Port
	})
}

// Lines returns the listeners' strings in order.
func Lines(listeners []Listener) []string {
	lines := make([]string, 0, len(listeners))
	for _, listener := range listeners {
		lines = append(lines, listener.String())
	}
	slices.Sort(lines)
	return lines
}

// Difference returns how what was reported differs from what listens, or "".
func Difference(reported, listening []Listener) string {
	got, want := Lines(reported), Lines(listening)
	var difference strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintf(&difference, "\nmissing:  %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintf(&difference, "\nreported: %s", line)
		}
	}
	if difference.Len() == 0 && len(got) != len(want) {
		return fmt.Sprintf("%d reported, %d listen:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	return difference.String()
}
