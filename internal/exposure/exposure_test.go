package exposure

import (
	"net/netip"
	"slices"
	"testing"

	"portwatcher/internal/model"
)

func container(addresses []string, published ...string) *model.Container {
	c := &model.Container{ID: "x", Name: "x"}
	for _, a := range addresses {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	for _, host := range published {
		c.Ports = append(c.Ports, model.PublishedPort{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort(host)})
	}
	return c
}

func TestReach(t *testing.T) {
	ipv4 := []string{"172.17.0.2"}
	both := []string{"172.17.0.2", "fd00::2"}
	published := []string{"[::]:8080", "0.0.0.0:8080"}
	sorted := []string{"0.0.0.0:8080", "[::]:8080"}
	plain, open, open6, alone := container(ipv4), container(ipv4, published...), container(both, published...), container(nil)
	for _, test := range []struct {
		name       string
		listening  Listening
		containers []*model.Container
		want       model.Exposure
		published  []string
	}{
		{"loopback", Listening{model.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, false}, []*model.Container{plain}, model.Loopback, nil},
		{"all of 127/8", Listening{model.TCP, netip.MustParseAddr("127.9.9.9"), 80, false, false}, []*model.Container{plain}, model.Loopback, nil},
		{"IPv6 loopback", Listening{model.TCP, netip.MustParseAddr("::1"), 80, false, false}, []*model.Container{open6}, model.Loopback, nil},
		{"published, but on loopback", Listening{model.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, false}, []*model.Container{open}, model.Loopback, nil},
		{"network", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{plain}, model.Network, nil},
		{"published", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{open}, model.Published, sorted},
		{"published on the container's own address", Listening{model.TCP, netip.MustParseAddr("172.17.0.2"), 80, false, false}, []*model.Container{open}, model.Published, sorted},
		{"published, on an address of its own making", Listening{model.TCP, netip.MustParseAddr("192.0.2.7"), 80, false, false}, []*model.Container{open}, model.Network, nil},
		{"published, on its IPv6 address", Listening{model.TCP, netip.MustParseAddr("fd00::2"), 80, false, false}, []*model.Container{open6}, model.Published, []string{"[::]:8080"}},
		{"dual stack", Listening{model.TCP, netip.IPv6Unspecified(), 80, false, false}, []*model.Container{open}, model.Published, sorted},
		{"other port", Listening{model.TCP, netip.IPv4Unspecified(), 81, false, false}, []*model.Container{open}, model.Network, nil},
		{"other protocol", Listening{model.UDP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{open}, model.Network, nil},
		{"IPv6 only, forwarded to IPv4", Listening{model.TCP, netip.IPv6Unspecified(), 80, true, false}, []*model.Container{open}, model.Network, nil},
		{"IPv6 only, forwarded to IPv6", Listening{model.TCP, netip.IPv6Unspecified(), 80, true, false}, []*model.Container{open6}, model.Published, []string{"[::]:8080"}},
		{"IPv4 only, beside IPv6", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{open6}, model.Published, []string{"0.0.0.0:8080"}},
		{"dual stack, with IPv6", Listening{model.TCP, netip.IPv6Unspecified(), 80, false, false}, []*model.Container{open6}, model.Published, sorted},
		{"published by the namespace-mate", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{alone, open}, model.Published, sorted},
		{"no network", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, false}, []*model.Container{alone}, model.Loopback, nil},
		{"host", Listening{model.TCP, netip.IPv4Unspecified(), 80, false, true}, []*model.Container{alone}, model.Host, nil},
		{"host, on loopback", Listening{model.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, true}, []*model.Container{alone}, model.Loopback, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Of(test.listening, test.containers)
			if got.Exposure != test.want || !slices.Equal(got.Published, test.published) {
				t.Errorf("%s %v, want %s %v", got.Exposure, got.Published, test.want, test.published)
			}
		})
	}
}

func TestInner(t *testing.T) {
	for _, test := range []struct {
		address string
		linked  bool
		want    model.Exposure
	}{
		{"127.0.0.1", true, model.Loopback}, {"::1", true, model.Loopback}, {"0.0.0.0", false, model.Loopback}, {"0.0.0.0", true, model.Network}, {"10.0.0.1", true, model.Network},
	} {
		if got := Inner(netip.MustParseAddr(test.address), test.linked); got.Exposure != test.want || got.Published != nil {
			t.Errorf("%s, linked %v: %+v, want %s", test.address, test.linked, got, test.want)
		}
	}
}
