package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/explain"
)

// askExplain returns the explanation of a port, and its exit status.
func askExplain(t *testing.T, arguments ...string) (*explain.Explanation, int) {
	t.Helper()
	result := harness.Run(t, nil, append([]string{"explain", "--format", "json", "--state", "memory"}, arguments...)...)
	e := &explain.Explanation{}
	if err := json.Unmarshal([]byte(result.Stdout), e); err != nil {
		t.Fatalf("%v: %v\n%s%s", arguments, err, result.Stdout, result.Stderr)
	}
	return e, result.Status
}

// firewallOfHost adds a rule for what the host itself sends to an address.
func firewallOfHost(t *testing.T, address string) {
	t.Helper()
	rule := []string{"OUTPUT", "--destination", address, "--protocol", "tcp", "--dport", "80", "--jump", "DROP"}
	iptables := func(verb string) {
		t.Helper()
		if output, err := exec.Command("iptables", append([]string{"--wait", verb}, rule...)...).CombinedOutput(); err != nil {
			t.Fatalf("iptables %s %v: %v: %s", verb, rule, err, output)
		}
	}
	iptables("--insert")
	t.Cleanup(func() { iptables("--delete") })
}

// firewall adds a rule for incoming packets to a container's network namespace.
func firewall(t *testing.T, container *harness.Container, rule ...string) {
	t.Helper()
	command := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(container.PID), "--net", "iptables", "--append", "INPUT"}, rule...)...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, output)
	}
}

// addressOn returns the address of a container on a network.
func addressOn(t *testing.T, container *harness.Container, network string) string {
	t.Helper()
	return harness.Default.MustDocker(t, "container", "inspect", "--format", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), container.ID)
}

// hostPort returns the port of the host that leads to a port of a container.
func hostPort(t *testing.T, container *harness.Container, port string) string {
	t.Helper()
	_, number, err := net.SplitHostPort(container.Published(t, port+"/tcp")[0])
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// Broken and right set-ups, each with its diagnosis.
func TestExplain(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	first, second := harness.Default.Network(t, "first"), harness.Default.Network(t, "second")
	on := func(network string) []string { return []string{"--network", network} }
	publish := func(ports ...string) (options []string) {
		for _, port := range ports {
			options = append(options, "--publish", port)
		}
		return options
	}
	client := idle(t, "client", on(first)...)
	server := func(t *testing.T, options []string, arguments ...string) *harness.Container {
		t.Helper()
		return start(t, "server", 1, options, append([]string{"--mptcp=false"}, arguments...)...)
	}
	port80 := []string{"--tcp", "0.0.0.0:80"}
	for name, test := range map[string]struct {
		// set makes the set-up, and returns what is asked.
		set  func(t *testing.T) []string
		want explain.Diagnosis
		// remedy is a part of the remedy.
		remedy string
	}{
		"no such container": {func(t *testing.T) []string { return []string{harness.Name(t, "none") + ":80"} }, explain.NoContainer, "names"},
		"stopped": {func(t *testing.T) []string {
			c := server(t, nil, port80...)
			c.Do(t, "stop", "--time", "1")
			return []string{c.Name + ":80"}
		}, explain.NotRunning, "docker start"},
		"the host's port is taken": {func(t *testing.T) []string {
			port := hostPort(t, server(t, publish("80"), port80...), "80")
			name := harness.Name(t, "second")
			harness.Default.MustDocker(t, "create", "--name", name, "--publish", port+":80", harness.WorkloadImage(t, harness.Default), "pause")
			t.Cleanup(func() { harness.Default.MustDocker(t, "rm", "--force", name) })
			if _, err := harness.Default.Docker("start", name); err == nil {
				t.Fatal("both containers publish port " + port)
			}
			return []string{name + ":80"}
		}, explain.HostPortTaken, "another port"},
		"paused": {func(t *testing.T) []string {
			c := server(t, publish("80"), port80...)
			c.Do(t, "pause")
			return []string{c.Name + ":80"}
		}, explain.Paused, "docker unpause"},
		"nothing listens": {func(t *testing.T) []string { return []string{idle(t, "server").Name + ":80"} }, explain.NotListening, "docker logs"},
		"listens on another port": {func(t *testing.T) []string {
			return []string{server(t, publish("80"), "--tcp", "0.0.0.0:8080").Name + ":80"}
		}, explain.OtherPort, "listen on 80"},
		"the published port leads to another": {func(t *testing.T) []string {
			return []string{hostPort(t, server(t, publish("80"), "--tcp", "0.0.0.0:8080"), "80")}
		}, explain.OtherPort, "listen on 80"},
		"listens by UDP": {func(t *testing.T) []string {
			return []string{server(t, publish("53"), "--udp", "0.0.0.0:53").Name + ":53"}
		}, explain.OtherProtocol, "53/udp"},
		"loopback": {func(t *testing.T) []string {
			return []string{server(t, publish("80"), "--tcp", "127.0.0.1:80").Name + ":80"}
		}, explain.LoopbackOnly, "0.0.0.0"},
		"loopback, from a neighbour": {func(t *testing.T) []string {
			return []string{server(t, on(first), "--tcp", "127.0.0.1:80").Name + ":80", "--from", client.Name}
		}, explain.LoopbackOnly, "0.0.0.0"},
		"nobody accepts": {func(t *testing.T) []string {
			c := server(t, publish("80"), "--tcp", "0.0.0.0:80", "--backlog", "1")
			fillQueue(t, addressOn(t, c, "bridge")+":80")
			return []string{c.Name + ":80"}
		}, explain.QueueFull, "Restart"},
		"closes at once": {func(t *testing.T) []string {
			return []string{server(t, publish("80"), append(port80, "--dismiss")...).Name + ":80"}
		}, explain.ClosesAtOnce, "docker logs"},
		"a firewall on the container's loopback": {func(t *testing.T) []string {
			c := server(t, publish("80"), port80...)
			firewall(t, c, "--protocol", "tcp", "--dport", "80", "--jump", "DROP")
			return []string{c.Name + ":80"}
		}, explain.NotAnswering, "nft -a list chain ip filter INPUT"},
		"no network": {func(t *testing.T) []string { return []string{server(t, on("none"), port80...).Name + ":80"} }, explain.NoNetwork, "docker network connect"},
		"no common network": {func(t *testing.T) []string {
			return []string{server(t, on(second), port80...).Name + ":80", "--from", client.Name}
		}, explain.NoCommonNetwork, "docker network connect " + second},
		"an internal network": {func(t *testing.T) []string {
			inner := harness.Name(t, "inner")
			harness.Default.MustDocker(t, "network", "create", "--internal", inner)
			t.Cleanup(func() { harness.Default.MustDocker(t, "network", "rm", inner) })
			return []string{server(t, on(inner), port80...).Name + ":80"}
		}, explain.InternalNetwork, "not internal"},
		"IPv6 only, from a neighbour": {func(t *testing.T) []string {
			return []string{server(t, on(first), "--tcp", "[::]:80", "--v6only").Name + ":80", "--from", client.Name}
		}, explain.OtherAddress, "0.0.0.0"},
		"the address of another network": {func(t *testing.T) []string {
			c := idle(t, "server", on(second)...)
			harness.Default.MustDocker(t, "network", "connect", first, c.Name)
			c.Exec(t, "listen", "--mptcp=false", "--tcp", addressOn(t, c, second)+":80")
			return []string{c.Name + ":80", "--from", client.Name}
		}, explain.OtherAddress, "0.0.0.0"},
		"IPv6 only, published": {func(t *testing.T) []string {
			return []string{server(t, publish("80"), "--tcp", "[::]:80", "--v6only").Name + ":80"}
		}, explain.OtherAddress, "0.0.0.0"},
		"a firewall, from a neighbour": {func(t *testing.T) []string {
			c := server(t, on(first), port80...)
			firewall(t, c, "--in-interface", "eth0", "--jump", "DROP")
			return []string{c.Name + ":80", "--from", client.Name}
		}, explain.Filtered, "nft -a list chain ip filter INPUT"},
		"a firewall that rejects, from a neighbour": {func(t *testing.T) []string {
			c := server(t, on(first), port80...)
			firewall(t, c, "--in-interface", "eth0", "--protocol", "tcp", "--jump", "REJECT", "--reject-with", "tcp-reset")
			return []string{c.Name + ":80", "--from", client.Name}
		}, explain.Filtered, "rule of the firewall of container"},
		"a firewall, published": {func(t *testing.T) []string {
			c := server(t, publish("80"), port80...)
			firewall(t, c, "--in-interface", "eth0", "--jump", "DROP")
			return []string{c.Name + ":80"}
		}, explain.Filtered, "nft -a list chain ip filter INPUT"},
		"a firewall on the host": {func(t *testing.T) []string {
			c := server(t, publish("80"), port80...)
			firewallOfHost(t, addressOn(t, c, "bridge"))
			return []string{c.Name + ":80"}
		}, explain.Filtered, "rule of the firewall of the host: nft -a list chain ip filter OUTPUT"},
		"a firewall that drops UDP": {func(t *testing.T) []string {
			c := server(t, publish("53/udp"), "--udp", "0.0.0.0:53")
			firewall(t, c, "--in-interface", "eth0", "--protocol", "udp", "--jump", "DROP")
			return []string{c.Name + ":53/udp", "--probe-udp"}
		}, explain.Filtered, "nft -a list chain ip filter INPUT"},
		"right: UDP by a datagram": {func(t *testing.T) []string {
			return []string{server(t, publish("53/udp"), "--udp", "0.0.0.0:53").Name + ":53/udp", "--probe-udp"}
		}, explain.Reachable, ""},
		"not published": {func(t *testing.T) []string { return []string{server(t, nil, port80...).Name + ":80"} }, explain.NotPublished, "-p 80:80"},
		"another port is published": {func(t *testing.T) []string {
			return []string{server(t, publish("81"), port80...).Name + ":80"}
		}, explain.OtherMapping, "Publish 80 too"},
		"published for UDP": {func(t *testing.T) []string {
			return []string{server(t, publish("80/udp"), port80...).Name + ":80"}
		}, explain.OtherMapping, "Publish 80 too"},
		"published on the host's loopback": {func(t *testing.T) []string {
			return []string{server(t, publish("127.0.0.1::80"), port80...).Name + ":80"}
		}, explain.HostLoopbackOnly, "at all addresses"},
		"the host's network, loopback": {func(t *testing.T) []string {
			return []string{server(t, on("host"), "--tcp", "127.0.0.1:18971").Name + ":18971"}
		}, explain.HostLoopbackOnly, "0.0.0.0"},
		"nobody on the host":        {func(*testing.T) []string { return []string{"18972"} }, explain.NobodyOnHost, "-p 18972"},
		"a program of the host":     {func(t *testing.T) []string { return []string{hostServer(t, "127.0.0.1:0")} }, explain.HostLoopbackOnly, "0.0.0.0"},
		"right: a program":          {func(t *testing.T) []string { return []string{hostServer(t, "0.0.0.0:0")} }, explain.Reachable, ""},
		"right: published":          {func(t *testing.T) []string { return []string{server(t, publish("80"), port80...).Name + ":80"} }, explain.Reachable, ""},
		"right: by the host's port": {func(t *testing.T) []string { return []string{hostPort(t, server(t, publish("80"), port80...), "80")} }, explain.Reachable, ""},
		"right: from a neighbour": {func(t *testing.T) []string {
			return []string{server(t, on(first), port80...).Name + ":80", "--from", client.Name}
		}, explain.Reachable, ""},
		"right: the host's network": {func(t *testing.T) []string {
			return []string{server(t, on("host"), "--tcp", "0.0.0.0:18973").Name + ":18973"}
		}, explain.Reachable, ""},
		"right: a shared namespace": {func(t *testing.T) []string {
			owner := idle(t, "owner", publish("80")...)
			return []string{server(t, on("container:"+owner.Name), port80...).Name + ":80"}
		}, explain.Reachable, ""},
		"the owner of a shared namespace has ended": {func(t *testing.T) []string {
			owner := idle(t, "owner", publish("80")...)
			c := server(t, on("container:"+owner.Name), port80...)
			owner.Do(t, "kill")
			return []string{c.Name + ":80"}
		}, explain.NoNetwork, "anew"},
		"right: UDP": {func(t *testing.T) []string {
			return []string{server(t, publish("53/udp"), "--udp", "0.0.0.0:53").Name + ":53/udp"}
		}, explain.Reachable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			question := test.set(t)
			e, status := askExplain(t, question...)
			if e.Diagnosis != test.want || !strings.Contains(e.Remedy, test.remedy) {
				t.Errorf("%v: want %q, and %q in the remedy:\n%s", question, test.want, test.remedy, e)
			}
			if e.Reachable != (test.want == explain.Reachable) || (status == 0) != e.Reachable || status > 1 {
				t.Errorf("reachable is %v, exit status %d", e.Reachable, status)
			}
			for i, link := range e.Links {
				if broken := !e.Reachable && i == len(e.Links)-1; link.OK == broken || link.Text == "" {
					t.Errorf("link %d of %d: %+v", i+1, len(e.Links), link)
				}
			}
		})
	}
}

// hostServer listens on the host, and returns the port.
func hostServer(t *testing.T, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// fillQueue connects until nobody answers any more: connections fill the accept queue.
func fillQueue(t *testing.T, address string) {
	t.Helper()
	for range 10 {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return
		}
		t.Cleanup(func() { connection.Close() })
	}
	t.Fatalf("%s accepts 10 connections, want its accept queue to be full before", address)
}

// Wrong questions are errors of usage that name what is allowed.
func TestExplainUsage(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	fleet := harness.Default.StartMany(t, 2, harness.Spec{Name: harness.Name(t, "two"), Command: []string{"pause"}})
	for _, test := range []struct {
		arguments []string
		want      string
	}{
		{nil, "0 ports to explain"}, {[]string{"web:80", "web:81"}, "2 ports to explain"}, {[]string{"web:0"}, `"web:0"`},
		{[]string{"web"}, `"web"`}, {[]string{"80/sctp"}, `"80/sctp"`}, {[]string{":80"}, `":80"`},
		{[]string{harness.Pattern(t) + ":80"}, fleet[1].Name},
	} {
		result := harness.Run(t, nil, append([]string{"explain", "--state", "memory"}, test.arguments...)...)
		if problem := harness.OneLine(result.Stderr, test.want, "allowed"); problem != "" || result.Status != 2 {
			t.Errorf("%v: exit status %d, %s", test.arguments, result.Status, problem)
		}
	}
}
