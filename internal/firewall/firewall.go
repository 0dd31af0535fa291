// Package firewall reads the nftables rules of a network namespace that drop or reject
// packets, with their counters. Rules of iptables are among them where iptables is that of
// nftables (iptables-nft), as on today's distributions; those of the older iptables-legacy
// are not.
//
// It changes no rule.
package firewall

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Rule is a rule that drops or rejects.
type Rule struct {
	// Family is ip, ip6, inet, bridge, arp or netdev.
	Family, Table, Chain string
	// Number is the position in the chain, from 1.
	Number int
	// Verdict is drop or reject.
	Verdict string
	// Handle identifies the rule in its table.
	Handle uint64
	// Packets is the rule's counter, since it was made or reset.
	Packets uint64
}

// String names a rule: "rule 2 of chain INPUT in table ip filter (drop)".
func (r *Rule) String() string {
	return fmt.Sprintf("rule %d of chain %s in table %s %s (%s)", r.Number, r.Chain, r.Family, r.Table, r.Verdict)
}

// Policy is a base chain that drops what none of its rules accepts.
type Policy struct {
	Family, Table, Chain string
}

// String names a policy: "the policy of chain INPUT in table ip filter (drop)".
func (p *Policy) String() string {
	return fmt.Sprintf("the policy of chain %s in table %s %s (drop)", p.Chain, p.Family, p.Table)
}

// Rules are the rules of a network namespace that drop or reject.
type Rules struct {
	// Counted have a counter. Rules without one are left out: whether they were applied cannot
	// be read.
	Counted  []Rule
	Policies []Policy
}

// Command returns the command that lists the chain of a rule.
func (r *Rule) Command() string {
	return strings.Join([]string{"nft -a list chain", r.Family, r.Table, r.Chain}, " ")
}

// Moved returns the rules whose counter has risen since an earlier reading, that which has
// risen most first. Their Packets is by how much.
func (r *Rules) Moved(before *Rules) (moved []Rule) {
	type key struct {
		family, table string
		handle        uint64
	}
	earlier := map[key]uint64{}
	for _, rule := range before.Counted {
		earlier[key{rule.Family, rule.Table, rule.Handle}] = rule.Packets
	}
	for _, rule := range r.Counted {
		was, known := earlier[key{rule.Family, rule.Table, rule.Handle}]
		if known && rule.Packets > was {
			rule.Packets -= was
			moved = append(moved, rule)
		}
	}
	slices.SortStableFunc(moved, func(a, b Rule) int { return cmp.Compare(b.Packets, a.Packets) })
	return moved
}
