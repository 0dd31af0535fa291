package procfs

import (
	"errors"
	"net"
	"os"
	"testing"

	"portwatcher/internal/netns"
)

func TestConnections(t *testing.T) {
	before, err := Connections("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const count = 5
	for range count {
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server.Close()
		client.Close()
	}
	after, err := Connections("/proc", os.Getpid())
	if err != nil || after-before < 2*count {
		t.Errorf("%d connections more, error %v; want at least %d: each has a client and a server here", after-before, err, 2*count)
	}
	if _, err := Connections("/proc", 1<<22+1); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("error %v for a process that is not there, want %v", err, netns.ErrProcessGone)
	}
}

func TestConnectionsOfOneFile(t *testing.T) {
	const snmp = "Ip: Forwarding DefaultTTL\nIp: 1 64\n" +
		"Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails\nTcp: 1 200 120000 -1 12 30 4\nUdp: InDatagrams\nUdp: 5\n"
	if sum, err := Connections(files(t, map[string]string{"snmp": snmp}), 7); sum != 42 || err != nil {
		t.Errorf("sum %d, error %v; want 42", sum, err)
	}
	for _, text := range []string{"", "Tcp: ActiveOpens PassiveOpens\n", "Tcp: ActiveOpens PassiveOpens\nTcp: 1\n", "Tcp: ActiveOpens PassiveOpens\nTcp: x 1\n"} {
		if sum, err := Connections(files(t, map[string]string{"snmp": text}), 7); err == nil {
			t.Errorf("%q: sum %d, want an error", text, sum)
		}
	}
}
