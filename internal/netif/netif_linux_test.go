package netif

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

func lines(list []model.Interface) (lines []string) {
	for _, i := range list {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %v", i.Name, i.Kind, i.Addresses)))
	}
	slices.Sort(lines)
	return lines
}

func wants(t *testing.T, n *kernel.Namespace, want ...string) {
	t.Helper()
	list, err := Read(n.FD())
	if err != nil || list == nil {
		t.Fatalf("%v, error %v", list, err)
	}
	if got := lines(list); !slices.Equal(got, want) {
		t.Errorf("the interfaces are %q, want %q", got, want)
	}
}

func TestRead(t *testing.T) {
	n := kernel.NewNamespace(t)
	do := func(commands ...string) {
		t.Helper()
		n.Do(t, func() error { return kernel.IP(commands...) })
	}
	wants(t, n) // but loopback, which is up
	do("link add eth0 type veth peer name other", "addr add 10.9.0.2/24 dev eth0", "addr add 10.9.0.1/24 dev eth0",
		"addr add fd00::2/64 dev eth0 nodad", "addr add 10.9.1.2/24 dev other")
	wants(t, n) // they are down
	do("link set eth0 up")
	wants(t, n, "eth0 veth [10.9.0.1 10.9.0.2 fd00::2]")
	do("link add lan0 link eth0 type macvlan mode bridge", "link set lan0 up")
	wants(t, n, "eth0 veth [10.9.0.1 10.9.0.2 fd00::2]") // lan0 has no address
	do("addr add 192.0.2.9 peer 192.0.2.1 dev lan0")
	wants(t, n, "eth0 veth [10.9.0.1 10.9.0.2 fd00::2]", "lan0 macvlan [192.0.2.9]")
	do("link set lan0 down", "addr del 10.9.0.1/24 dev eth0")
	wants(t, n, "eth0 veth [10.9.0.2 fd00::2]")
	do("link del eth0")
	wants(t, n)
}

func TestReadWithoutANamespace(t *testing.T) {
	if list, err := Read(1 << 20); err == nil || !strings.Contains(err.Error(), "read network interfaces") {
		t.Errorf("%v, error %v", list, err)
	}
	if _, err := Listen(1 << 20); err == nil || !strings.Contains(err.Error(), "listen for changes of network interfaces") {
		t.Errorf("error %v", err)
	}
}

// Each step that changes what Read returns ends a Wait, and Close does.
func TestListen(t *testing.T) {
	n := kernel.NewNamespace(t)
	l, err := Listen(n.FD())
	if err != nil {
		t.Fatal(err)
	}
	changes, ended := make(chan struct{}, 1), make(chan error)
	go func() {
		for {
			if err := l.Wait(); err != nil {
				ended <- err
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	for _, step := range []string{
		"link add eth0 type veth peer name other", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up", "addr add fd00::2/64 dev eth0 nodad",
		"addr del 10.9.0.2/24 dev eth0", "link set eth0 down", "link set eth0 up", "link del eth0",
	} {
		n.Do(t, func() error { return kernel.IP(step) })
		<-changes
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Wait has ended without an error")
	}
}
