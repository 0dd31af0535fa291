package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
)

// chain collects the links of an explanation.
type chain struct {
	*Facts
	Explanation
}

// Explain returns the way to the port, up to the first broken link.
func Explain(f *Facts) *Explanation {
	c := &chain{Facts: f, Explanation: Explanation{Target: f.Question.String(), From: f.From, Links: []Link{}}}
	if f.Subject != nil {
		c.Container = &f.Subject.ContainerRef
		if f.Question.Container != "" {
			c.Target = Question{Container: f.Subject.Name, Port: f.Port, Protocol: f.Protocol}.String()
		}
	}
	for _, link := range []func() bool{
		c.exists, c.runs, c.listens, c.beyondLoopback, c.answers, c.onNetwork, c.fromOther, c.published, c.beyondHost, c.forwards,
	} {
		if !link() {
			return &c.Explanation
		}
	}
	c.Diagnosis, c.Reachable = Reachable, true
	return &c.Explanation
}

func (c *chain) ok(format string, arguments ...any) bool {
	c.Links = append(c.Links, Link{true, fmt.Sprintf(format, arguments...)})
	return true
}

// broken ends the chain. It returns false.
func (c *chain) broken(d Diagnosis, remedy, format string, arguments ...any) bool {
	c.Links = append(c.Links, Link{false, fmt.Sprintf(format, arguments...)})
	c.Diagnosis, c.Remedy = d, remedy
	return false
}

// reached ends the chain with success. It returns false.
func (c *chain) reached() bool {
	c.Diagnosis, c.Reachable = Reachable, true
	return false
}

func (c *chain) exists() bool {
	switch {
	case c.Subject != nil:
		return true
	case c.Question.Container == "":
		return c.hostPort()
	}
	text := fmt.Sprintf("no container is named %q", c.Question.Container)
	if len(c.Near) > 0 {
		return c.broken(NoContainer, "Use one of these names, or start the container.", "%s; there are: %s", text, strings.Join(c.Near, ", "))
	}
	return c.broken(NoContainer, "Start the container.", "%s; there are none", text)
}

// hostPort explains a port of the host that no container publishes.
func (c *chain) hostPort() bool {
	if len(c.HostListeners) == 0 {
		return c.broken(NobodyOnHost, fmt.Sprintf("Publish it from a container (-p %d:PORT), or start the program that should listen.", c.Port),
			"nobody listens on port %s of the host, and no container publishes it", c.portText(c.Port))
	}
	names := listenersText(c.HostListeners)
	onLoopback := !slices.ContainsFunc(c.HostListeners, func(l HostListener) bool { return !l.Address.IsLoopback() })
	if onLoopback {
		return c.broken(HostLoopbackOnly, "Let the program listen on 0.0.0.0 or [::] where other machines are to reach it.",
			"a process of the host listens on loopback only, and no container publishes the port: %s", names)
	}
	c.ok("no container publishes port %s; a process of the host listens: %s", c.portText(c.Port), names)
	if bad := failed(c.Published); bad != nil {
		return c.broken(NotAnswering, "Look into the program's log.", "%s to %s: %s", c.verb(), bad.To, bad.Result)
	}
	return c.reached()
}

func listenersText(listeners []HostListener) string {
	return joined(listeners, func(l HostListener) string {
		who := "an unknown process"
		if len(l.Processes) > 0 {
			who = processText(&l.Processes[0])
		}
		return fmt.Sprintf("%s on %s", who, l.Address)
	})
}

// holder names who holds a port of the host.
func (c *chain) holder() string {
	if c.Publisher != "" {
		return "container " + c.Publisher + ", which publishes it"
	}
	return listenersText(c.HostListeners)
}

func processText(p *model.Process) string { return fmt.Sprintf("%s (pid %d)", p.Name, p.PID) }

func (c *chain) runs() bool {
	s := c.Subject
	switch {
	case s.State == "paused":
		return c.broken(Paused, "docker unpause "+s.Name, "container %s is paused: connections are accepted by the kernel, and nobody answers", s.Name)
	case s.Container == nil && s.State == "created" && len(c.HostListeners) > 0:
		return c.broken(HostPortTaken, fmt.Sprintf("Publish another port of the host, or end what holds this one; then docker start %s.", s.Name),
			"container %s has not started: its port of the host, %s, is held by %s", s.Name, hosts(s.Requested), c.holder())
	case s.Container == nil:
		return c.broken(NotRunning, fmt.Sprintf("docker start %s; docker logs %s shows why it has ended.", s.Name, s.Name),
			"container %s does not run: %s", s.Name, s.Status)
	}
	if c.Question.Container == "" {
		return c.ok("port %s of the host belongs to container %s, port %s there", c.portText(c.Port), s.Name, c.portText(c.Inside))
	}
	return c.ok("container %s runs", s.Name)
}

func (c *chain) portText(port uint16) string { return fmt.Sprintf("%d/%s", port, c.Protocol) }

// here returns what is open at the port.
func (f *Facts) here() (open []model.Open) {
	for _, o := range f.Open {
		if o.Port == f.Inside && o.Protocol == f.Protocol {
			open = append(open, o)
		}
	}
	return open
}

func (c *chain) listens() bool {
	open := c.here()
	if len(open) > 0 {
		for _, o := range open {
			text := fmt.Sprintf("%s is open on %s", c.portText(c.Inside), addressText(&o))
			if len(o.Processes) > 0 {
				text += ", by " + processText(&o.Processes[0])
			}
			if o.Container != nil && o.Container.ID != c.Subject.ID {
				text += ", in container " + o.Container.Name + ", which shares the network namespace"
			}
			if c.Last != nil && c.Last.Type == model.Opened {
				text += ", since " + moment(c.Last)
			}
			c.ok("%s", text)
		}
		return true
	}
	text := "nobody listens on " + c.portText(c.Inside)
	if c.Last != nil && c.Last.Type == model.Closed {
		text += fmt.Sprintf(" (%s listened until %s)", who(c.Last), moment(c.Last))
	}
	var others, protocols []string
	for _, o := range c.Open {
		others = append(others, fmt.Sprintf("%d/%s", o.Port, o.Protocol))
		if o.Port == c.Inside {
			protocols = append(protocols, o.Protocol.String())
		}
	}
	slices.Sort(others)
	others = slices.Compact(others)
	switch {
	case len(protocols) > 0:
		return c.broken(OtherProtocol, fmt.Sprintf("Ask for %d/%s, or let the program listen by %s.", c.Inside, protocols[0], c.Protocol),
			"%s; %d/%s is open", text, c.Inside, protocols[0])
	case len(others) > 0:
		return c.broken(OtherPort, fmt.Sprintf("Let the program listen on %d, or use the port on which it listens.", c.Inside), "%s; open are: %s", text, strings.Join(others, ", "))
	}
	return c.broken(NotListening, fmt.Sprintf("docker logs %s: the program may be starting, or may have failed.", c.Subject.Name), "%s; no port is open in %s", text, c.Subject.Name)
}

func moment(e *model.Event) string { return e.Time.Local().Format("2006-01-02 15:04:05 MST") }

func who(e *model.Event) string {
	if len(e.Processes) > 0 {
		return e.Processes[0].Name
	}
	return "a program"
}

func addressText(o *model.Open) string {
	if o.IPv6Only {
		return o.Address.String() + " (IPv6 only)"
	}
	return o.Address.String()
}

func (f *Facts) onHost() bool { return f.Subject.Container.NetworkMode == "host" }

func (c *chain) beyondLoopback() bool {
	beyond := slices.ContainsFunc(c.here(), func(o model.Open) bool { return !o.Address.IsLoopback() })
	switch {
	case beyond && c.v6Only() && !c.onHost() && !slices.ContainsFunc(c.Subject.Container.Addresses, netip.Addr.Is6):
		return c.broken(OtherAddress, "Let the program listen on 0.0.0.0, or on [::] without IPV6_V6ONLY; or give the container a network with IPv6.",
			"it takes IPv6 connections only, and the container has no IPv6 address")
	case beyond:
		return true
	}
	if c.onHost() {
		return c.broken(HostLoopbackOnly, "Let the program listen on 0.0.0.0 or [::] where other machines are to reach it.",
			"the container uses the host's network, and the program listens on loopback only: this host alone reaches it")
	}
	return c.broken(LoopbackOnly, "Let the program listen on 0.0.0.0 (or [::]) instead of its own loopback; or use network_mode: host.",
		"it listens on loopback only: nobody outside its network namespace can reach it, and a published port does not help")
}

// answers checks the tries from the container's own namespace.
func (c *chain) answers() bool {
	bad := failed(c.Own)
	if len(c.Own) == 0 || bad == nil {
		switch {
		case len(c.Own) == 0:
		case accepted(c.Own[0]):
			c.ok("it answers inside its own network namespace, at %s", c.Own[0].To)
		default:
			c.ok("sending inside its own network namespace, to %s: %s, as is usual with UDP", c.Own[0].To, c.Own[0].Result)
		}
		return true
	}
	if len(bad.Blocked) > 0 {
		return c.blocked(NotAnswering, bad, "%s inside its own network namespace, to %s: %s", c.verb(), bad.To, bad.Result)
	}
	switch {
	case bad.Result == NoAnswer && c.Queued > 0:
		return c.broken(QueueFull, "The program does not accept: it is stuck, or overloaded. Restart it, or let it accept faster (threads, backlog, somaxconn).",
			"it does not answer inside its own network namespace, at %s: its accept queue is full, %d connections wait in it", bad.To, c.Queued)
	case bad.Result == Dropped:
		return c.broken(ClosesAtOnce, fmt.Sprintf("docker logs %s: the program ends each connection, such as for want of an allowed address, or of TLS.", c.Subject.Name),
			"it accepts and ends the connection at once, inside its own network namespace already (%s)", bad.To)
	}
	return c.broken(NotAnswering, "Look for a firewall inside the container's network namespace (nft list ruleset, iptables -S there).",
		"%s inside its own network namespace, to %s: %s", c.verb(), bad.To, bad.Result)
}

func (c *chain) onNetwork() bool {
	if c.onHost() {
		return c.ok("it uses the host's network: its ports are the host's own")
	}
	if len(c.Subject.Container.Addresses) == 0 && c.Owner != "" {
		return c.broken(NoNetwork, fmt.Sprintf("Start %s anew, and then %s.", c.Owner, c.Subject.Name),
			"it shares the network namespace of container %s, which has ended or is on no network", c.Owner)
	}
	if c.Owner != "" {
		c.ok("it shares the network namespace of container %s: the networks and published ports of that count", c.Owner)
	}
	if len(c.Subject.Container.Addresses) == 0 {
		return c.broken(NoNetwork, fmt.Sprintf("docker network connect bridge %s; or start it with another --network.", c.Subject.Name),
			"container %s is on no network", c.Subject.Name)
	}
	for _, n := range c.Subject.Networks {
		if len(n.Addresses) > 0 {
			c.ok("it is on network %s (%s), at %s", n.Name, n.Driver, joined(n.Addresses, netip.Addr.String))
		}
	}
	return true
}

// joined lists items in a sentence.
func joined[T any](items []T, text func(T) string) string {
	all := make([]string, len(items))
	for i, item := range items {
		all[i] = text(item)
	}
	return strings.Join(all, ", ")
}

// fromOther ends the chain where the question is from another container.
func (c *chain) fromOther() bool {
	if c.From == "" {
		return true
	}
	if len(c.common()) == 0 && !c.onHost() && !slices.ContainsFunc(c.FromOther, accepted) {
		network := "NETWORK"
		if len(c.Subject.Networks) > 0 {
			network = c.Subject.Networks[0].Name
		}
		return c.broken(NoCommonNetwork, fmt.Sprintf("docker network connect %s %s; in Compose, name the network in both services.", network, c.Other.Name),
			"containers %s and %s have no network in common", c.Other.Name, c.Subject.Name)
	}
	return c.connected(c.FromOther, "from container "+c.Other.Name) && c.reached()
}

// common returns the networks that both containers are on.
func (f *Facts) common() []engine.Network {
	return slices.DeleteFunc(slices.Clone(f.Subject.Networks), func(n engine.Network) bool {
		return len(n.Addresses) == 0 || !slices.ContainsFunc(f.Other.Networks, func(o engine.Network) bool { return o.Name == n.Name })
	})
}
