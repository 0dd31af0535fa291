package exposure

import (
	"net/netip"
	"slices"
	"testing"

	"portwatcher/internal/port"
)

func container(addresses []string, published ...string) *port.Container {
	c := &port.Container{ID: "x", Name: "x"}
	for _, a := range addresses {
		c.Addresses = append(c.Addresses, netip.MustParseAddr(a))
	}
	for _, host := range published {
		c.Ports = append(c.Ports, port.PublishedPort{Protocol: port.TCP, Port: 80, Host: netip.MustParseAddrPort(host)})
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
		containers []*port.Container
		want       port.Exposure
		published  []string
	}{
		{"loopback", Listening{port.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, false}, []*port.Container{plain}, port.Loopback, nil},
		{"all of 127/8", Listening{port.TCP, netip.MustParseAddr("127.9.9.9"), 80, false, false}, []*port.Container{plain}, port.Loopback, nil},
		{"IPv6 loopback", Listening{port.TCP, netip.MustParseAddr("::1"), 80, false, false}, []*port.Container{open6}, port.Loopback, nil},
		{"published, but on loopback", Listening{port.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, false}, []*port.Container{open}, port.Loopback, nil},
		{"network", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{plain}, port.Network, nil},
		{"published", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{open}, port.Published, sorted},
		{"published on the container's own address", Listening{port.TCP, netip.MustParseAddr("172.17.0.2"), 80, false, false}, []*port.Container{open}, port.Published, sorted},
		{"published, on an address of its own making", Listening{port.TCP, netip.MustParseAddr("192.0.2.7"), 80, false, false}, []*port.Container{open}, port.Network, nil},
		{"published, on its IPv6 address", Listening{port.TCP, netip.MustParseAddr("fd00::2"), 80, false, false}, []*port.Container{open6}, port.Published, []string{"[::]:8080"}},
		{"dual stack", Listening{port.TCP, netip.IPv6Unspecified(), 80, false, false}, []*port.Container{open}, port.Published, sorted},
		{"other port", Listening{port.TCP, netip.IPv4Unspecified(), 81, false, false}, []*port.Container{open}, port.Network, nil},
		{"other protocol", Listening{port.UDP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{open}, port.Network, nil},
		{"IPv6 only, forwarded to IPv4", Listening{port.TCP, netip.IPv6Unspecified(), 80, true, false}, []*port.Container{open}, port.Network, nil},
		{"IPv6 only, forwarded to IPv6", Listening{port.TCP, netip.IPv6Unspecified(), 80, true, false}, []*port.Container{open6}, port.Published, []string{"[::]:8080"}},
		{"IPv4 only, beside IPv6", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{open6}, port.Published, []string{"0.0.0.0:8080"}},
		{"dual stack, with IPv6", Listening{port.TCP, netip.IPv6Unspecified(), 80, false, false}, []*port.Container{open6}, port.Published, sorted},
		{"published by the namespace-mate", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{alone, open}, port.Published, sorted},
		{"no network", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, false}, []*port.Container{alone}, port.Loopback, nil},
		{"host", Listening{port.TCP, netip.IPv4Unspecified(), 80, false, true}, []*port.Container{alone}, port.Host, nil},
		{"host, on loopback", Listening{port.TCP, netip.MustParseAddr("127.0.0.1"), 80, false, true}, []*port.Container{alone}, port.Loopback, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Of(test.listening, test.containers)
			if got.Exposure != test.want || !slices.Equal(got.Published, test.published) {
				t.Errorf("%s %v, want %s %v", got.Exposure, got.Published, test.want, test.published)
			}
		})
	}
}
