package explain

import (
	"fmt"
	"slices"
	"strings"

	"portwatcher/internal/model"
)

// blocked ends the chain with the rules that dropped or rejected a try.
func (c *chain) blocked(d Diagnosis, bad *Try, format string, arguments ...any) bool {
	rules := joined(bad.Blocked, func(b Blocked) string {
		return fmt.Sprintf("%s of %s counted %d", b.Rule.String(), b.Where, b.Packets)
	})
	first := bad.Blocked[0]
	return c.broken(d, fmt.Sprintf("Change this rule of the firewall of %s: %s shows it.", first.Where, first.Command()),
		"%s; packets meanwhile: %s", fmt.Sprintf(format, arguments...), rules)
}

// policies names what may have dropped a try, for the end of a link's text.
func policies(bad *Try) string {
	if len(bad.Policies) == 0 {
		return ""
	}
	return "; no rule with a counter was applied, but what no rule accepts is dropped by " + strings.Join(bad.Policies, ", ")
}

// verb names what a try does.
func (c *chain) verb() string {
	if c.Protocol == model.UDP {
		return "sending"
	}
	return "connecting"
}

// connected checks tries of which one has to succeed. UDP has none unless they were asked for.
func (c *chain) connected(tries []Try, from string) bool {
	if len(tries) == 0 {
		return true
	}
	if i := slices.IndexFunc(tries, accepted); i >= 0 {
		return c.ok("%s %s to %s: accepted", c.verb(), from, tries[i].To)
	}
	if i := slices.IndexFunc(tries, func(t Try) bool { return len(t.Blocked) > 0 }); i >= 0 {
		return c.blocked(Filtered, &tries[i], "%s %s to %s: %s", c.verb(), from, tries[i].To, tries[i].Result)
	}
	bad := failed(tries)
	if bad == nil {
		return c.ok("sending %s to %s: %s, as is usual with UDP", from, tries[0].To, tries[0].Result)
	}
	switch bad.Result {
	case Refused:
		if slices.ContainsFunc(c.here(), func(o model.Open) bool { return o.Address.IsUnspecified() || o.Address == bad.To.Addr() }) && !c.v6Only() {
			return c.broken(Filtered, "A firewall rejects: look at its rules on the host (iptables -S, nft list ruleset; chains FORWARD and DOCKER-USER).",
				"%s %s to %s: refused, although it listens there%s", c.verb(), from, bad.To, policies(bad))
		}
		return c.broken(OtherAddress, "Let the program listen on this address: on 0.0.0.0, or on [::] without IPV6_V6ONLY.",
			"%s %s to %s: refused; it listens on other addresses only: %s", c.verb(), from, bad.To, c.addresses())
	case Dropped:
		return c.broken(ClosesAtOnce, fmt.Sprintf("docker logs %s: the program ends connections from there.", c.Subject.Name), "%s %s to %s: %s", c.verb(), from, bad.To, bad.Result)
	}
	return c.broken(Filtered, "A firewall drops the packets: look at its rules on the host (iptables -nvL, nft list ruleset; chains FORWARD and DOCKER-USER) and in the container.",
		"%s %s to %s: %s%s", c.verb(), from, bad.To, bad.Result, policies(bad))
}

// v6Only reports whether the port takes no IPv4 traffic.
func (c *chain) v6Only() bool {
	return !slices.ContainsFunc(c.here(), func(o model.Open) bool { return o.Address.Is4() || o.Address.IsUnspecified() && !o.IPv6Only })
}

func (c *chain) addresses() string {
	return joined(c.here(), func(o model.Open) string { return addressText(&o) })
}

func accepted(t Try) bool { return t.Result == Accepted }

// failed returns the first try that was neither accepted nor silent; nil where there is none.
func failed(tries []Try) *Try {
	if i := slices.IndexFunc(tries, func(t Try) bool { return !accepted(t) && t.Result != Silent }); i >= 0 {
		return &tries[i]
	}
	return nil
}
