package firewall

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

// Rules are read from a namespace of the test's own, with what they count.
func TestRead(t *testing.T) {
	namespace := kernel.NewNamespace(t)
	addRules(t, namespace.FD())
	before, err := Read(namespace.FD())
	if err != nil {
		t.Fatal(err)
	}
	if len(before.Counted) != 2 || len(before.Policies) != 1 {
		t.Fatalf("rules %+v: want two with counters and a policy", before)
	}
	if got, want := before.Policies[0].String(), "the policy of chain forward in table inet mine (drop)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if moved := before.Moved(&before); len(moved) != 0 {
		t.Errorf("nothing has moved: %v", moved)
	}
	namespace.Do(t, func() error {
		dialer := net.Dialer{Timeout: 50 * time.Millisecond}
		if conn, err := dialer.Dial("tcp", "127.0.0.1:81"); err == nil {
			return errors.Join(errors.New("the rule does not drop"), conn.Close())
		}
		return nil
	})
	after, err := Read(namespace.FD())
	if err != nil {
		t.Fatal(err)
	}
	moved := after.Moved(&before)
	if len(moved) != 1 || moved[0].Packets == 0 || moved[0].String() != "rule 2 of chain input in table inet mine (drop)" {
		t.Fatalf("moved %v: want rule 2 alone", moved)
	}
	if got, want := moved[0].Command(), "nft -a list chain inet mine input"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// addRules makes chains with a rule that accepts, two that drop port 81 and 82 with a counter,
// and one that drops without.
func addRules(t *testing.T, fd int) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(fd))
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "mine"})
	input := conn.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	drop := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	port := func(number uint16, rest ...expr.Any) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
		}, rest...)})
	}
	port(80, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
	port(81, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	port(82, &expr.Counter{}, &expr.Reject{})
	port(83, &expr.Verdict{Kind: expr.VerdictDrop})
	if err := conn.Flush(); err != nil {
		t.Fatalf("make rules of nftables: %v", err)
	}
}
