package main

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

func TestOpenCanBeSpokenToUntilClose(t *testing.T) {
	for _, test := range []struct {
		name, address string
		options       options
	}{
		{"tcp", "127.0.0.1", options{protocol: model.TCP}},
		{"mptcp", "127.0.0.1", options{protocol: model.TCP, mptcp: true}},
		{"tcp on IPv6", "::1", options{protocol: model.TCP, v6only: true}},
		{"tcp without bind", "127.0.0.1", options{protocol: model.TCP, unbound: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := time.Now()
			s, err := open(netip.AddrPortFrom(netip.MustParseAddr(test.address), 0), test.options)
			if err != nil {
				t.Fatal(err)
			}
			f := s.opened
			if f.Time.Before(before) || f.After.Before(f.Time) || time.Since(f.After) < 0 {
				t.Errorf("times %v, %v are not in order", f.Time, f.After)
			}
			if f.Port == 0 || f.Cookie == 0 || f.MPTCP && !test.options.mptcp {
				t.Errorf("fact %+v lacks a port or a cookie, or is MPTCP unasked", f)
			}
			target := net.JoinHostPort(test.address, strconv.Itoa(int(f.Port)))
			conn, err := net.Dial("tcp", target)
			if err != nil {
				t.Fatalf("opened, but: %v", err)
			}
			conn.Close()
			closed, err := s.close()
			if err != nil {
				t.Fatal(err)
			}
			if closed.Action != truth.Closed || closed.Cookie != f.Cookie || closed.Time.Before(f.After) {
				t.Errorf("closed %+v after %+v", closed, f)
			}
			if conn, err := net.Dial("tcp", target); err == nil {
				conn.Close()
				t.Error("closed, but can be connected to")
			}
		})
	}
}

func TestOpenUDPTakesThePort(t *testing.T) {
	s, err := open(netip.MustParseAddrPort("127.0.0.1:0"), options{protocol: model.UDP})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.opened.Port)
	if second, err := open(at, options{protocol: model.UDP}); err == nil {
		second.close()
		t.Error("the port could be bound twice")
	}
	if _, err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenReuseportGroup(t *testing.T) {
	facts := runFacts(t, "listen", "--tcp", "127.77.0.1:20001", "--udp", "127.77.0.1:20002",
		"--reuseport", "3", "--leave-after", "1ms", "--for", "1ms")
	if count(facts, truth.Opened) != 6 || count(facts, truth.Closed) != 6 {
		t.Errorf("got %+v, want 6 opened and 6 closed", facts)
	}
	cookies := map[uint64]bool{}
	for _, f := range facts {
		cookies[f.Cookie] = true
	}
	if len(cookies) != 6 {
		t.Errorf("%d different sockets, want 6", len(cookies))
	}
}

func TestListenChildrenInherit(t *testing.T) {
	for _, args := range [][]string{
		{"listen", "--tcp", "127.77.0.1:0", "--udp", "127.77.0.1:0", "--children", "2", "--for", "1ms"},
		{"listen", "--tcp", "127.77.0.1:0", "--udp", "127.77.0.1:0", "--children", "2", "--handover", "--for", "1ms"},
	} {
		facts := runFacts(t, args...)
		holders := map[int]bool{}
		for _, f := range facts {
			if f.Action == truth.Held {
				holders[f.PID] = true
			}
		}
		if len(holders) != 2 || holders[os.Getpid()] || count(facts, truth.Held) != 4 || count(facts, truth.Closed) != 2 {
			t.Errorf("%v: got %+v, want 2 sockets, each held by 2 other processes and then closed", args, facts)
		}
	}
}

func TestBurstOverlaps(t *testing.T) {
	facts := runFacts(t, "burst", "--protocol", "udp", "--address", "127.77.0.1", "--count", "5",
		"--base-port", "20100", "--hold", "30ms", "--interval", "2ms")
	var opened, closed []truth.Fact
	for _, f := range facts {
		if f.Action == truth.Opened {
			opened = append(opened, f)
		} else {
			closed = append(closed, f)
		}
	}
	if len(opened) != 5 || len(closed) != 5 {
		t.Fatalf("got %+v", facts)
	}
	for i := range opened {
		if want := uint16(20100 + i); opened[i].Port != want || closed[i].Port != want {
			t.Errorf("port %d opened, %d closed as number %d; want %d", opened[i].Port, closed[i].Port, i, want)
		}
		if held := closed[i].Time.Sub(opened[i].After); held < 30*time.Millisecond {
			t.Errorf("port %d was held %v, want 30ms or more", opened[i].Port, held)
		}
	}
}

func TestBurstSamePort(t *testing.T) {
	facts := runFacts(t, "burst", "--address", "127.77.0.1", "--count", "3", "--base-port", "20200",
		"--hold", "1ms", "--interval", "1ms", "--same-port")
	if len(facts) != 6 {
		t.Fatalf("got %d facts, want 6", len(facts))
	}
	for i, f := range facts {
		want := []truth.Action{truth.Opened, truth.Closed}[i%2]
		if f.Port != 20200 || f.Action != want {
			t.Errorf("fact %d is %s of port %d, want %s of 20200", i, f.Action, f.Port, want)
		}
	}
}

func TestTrafficSummaries(t *testing.T) {
	for _, test := range []struct {
		args []string
		want uint64
	}{
		{[]string{"storm", "--address", "127.77.0.1", "--count", "2000", "--port", "20300"}, 2000},
		{[]string{"storm", "--protocol", "udp", "--address", "127.77.0.1", "--count", "2000", "--port", "20300"}, 2000},
		{[]string{"udp-client", "--count", "50", "--port", "9"}, 50},
		{[]string{"connect-refused", "--count", "50"}, 50},
	} {
		facts := runFacts(t, test.args...)
		if len(facts) != 1 || facts[0].Count != test.want || facts[0].PerSecond <= 0 {
			t.Errorf("%v: got %+v, want one summary of %d", test.args, facts, test.want)
		}
	}
}

func TestAcceptLoopIsBounded(t *testing.T) {
	facts := runFacts(t, "accept-loop", "--port", "0", "--rate", "500", "--for", "200ms")
	if len(facts) != 3 || facts[0].Action != truth.Opened || facts[2].Action != truth.Closed {
		t.Fatalf("got %+v, want opened, summary, closed", facts)
	}
	if s := facts[1]; s.Count == 0 || s.PerSecond > 500 {
		t.Errorf("%d connections, %.0f a second; want some, 500 a second at most", s.Count, s.PerSecond)
	}
}
