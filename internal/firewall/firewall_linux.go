package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Read reads the rules of the network namespace that fd refers to, which stays the caller's.
// It needs the capability NET_ADMIN there. Where a part cannot be read, it returns the rest,
// and an error that names the part.
func Read(fd int) (rules Rules, err error) {
	conn, err := nftables.New(nftables.WithNetNSFd(fd), nftables.AsLasting())
	if err != nil {
		return rules, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	chains, err := conn.ListChains()
	if err != nil {
		return rules, fmt.Errorf("list the chains of nftables: %w", err)
	}
	var failures []error
	for _, chain := range chains {
		family := familyName(chain.Table.Family)
		if chain.Hooknum != nil && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			rules.Policies = append(rules.Policies, Policy{family, chain.Table.Name, chain.Name})
		}
		list, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			failures = append(failures, fmt.Errorf("list the rules of chain %s in table %s %s: %w", chain.Name, family, chain.Table.Name, err))
			continue
		}
		for i, rule := range list {
			verdict, packets, counted := read(rule.Exprs)
			if verdict != "" && counted {
				rules.Counted = append(rules.Counted, Rule{family, chain.Table.Name, chain.Name, i + 1, verdict, rule.Handle, packets})
			}
		}
	}
	return rules, errors.Join(failures...)
}

// read returns the verdict of a rule, empty where it neither drops nor rejects, and its
// counter.
func read(parts []expr.Any) (verdict string, packets uint64, counted bool) {
	for _, part := range parts {
		switch part := part.(type) {
		case *expr.Counter:
			packets, counted = part.Packets, true
		case *expr.Verdict:
			if part.Kind == expr.VerdictDrop {
				verdict = "drop"
			}
		case *expr.Reject:
			verdict = "reject"
		case *expr.Target: // of iptables-nft
			if part.Name == "REJECT" {
				verdict = "reject"
			}
		}
	}
	return verdict, packets, counted
}

// familyName returns the name of a family as nft(8) has it.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", f)
}
