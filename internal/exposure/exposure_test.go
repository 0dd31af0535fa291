package exposure

import (
	"net/netip"
	"slices"
	"strings"
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
			got := Of(test.listening, Namespace{Containers: test.containers})
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

func device(kind string, addresses ...string) model.Interface {
	i := model.Interface{Name: "eth0", Kind: kind}
	for _, a := range addresses {
		i.Addresses = append(i.Addresses, netip.MustParseAddr(a))
	}
	return i
}

// What the kernel has in the namespace counts, and not what the engine describes.
func TestReachByInterfaces(t *testing.T) {
	ipv4 := []string{"172.17.0.2"}
	both := []string{"172.17.0.2", "fd00::2"}
	eth0, both0 := device("veth", ipv4...), device("veth", both...)
	lan0, lan6 := device("macvlan", "192.0.2.9"), device("macvlan", "fe80::9")
	open, open6 := container(ipv4, "0.0.0.0:8080", "[::]:8080"), container(both, "0.0.0.0:8080", "[::]:8080")
	inside := container(ipv4, "127.0.0.1:8080")
	plain, alone := container(ipv4), container(nil)
	of := func(address string) Listening {
		return Listening{Protocol: model.TCP, Address: netip.MustParseAddr(address), Port: 80}
	}
	all := of("0.0.0.0")
	only6 := of("::")
	only6.IPv6Only = true
	host := of("0.0.0.0")
	host.Host = true
	for _, test := range []struct {
		name       string
		listening  Listening
		container  *model.Container
		interfaces []model.Interface
		want       model.Exposure
		published  string
	}{
		{"on a network", all, plain, []model.Interface{eth0}, model.Network, ""},
		{"published", all, open, []model.Interface{eth0}, model.Published, "0.0.0.0:8080 [::]:8080"},
		{"the engine has taken the interface away", all, open, []model.Interface{}, model.Loopback, ""},
		{"the published address has gone", all, open, []model.Interface{device("veth", "10.0.0.9")}, model.Network, ""},
		{"an interface that the engine does not know", all, alone, []model.Interface{eth0}, model.Network, ""},
		{"on the address that the engine does not know", of("172.17.0.2"), alone, []model.Interface{eth0}, model.Network, ""},
		{"on loopback", of("127.0.0.1"), open, []model.Interface{eth0}, model.Loopback, ""},
		{"macvlan", all, plain, []model.Interface{lan0}, model.Lan, ""},
		{"macvlan, on its address", of("192.0.2.9"), alone, []model.Interface{eth0, lan0}, model.Lan, ""},
		{"beside macvlan, on the network's address", of("172.17.0.2"), alone, []model.Interface{eth0, lan0}, model.Network, ""},
		{"macvlan, of another family", all, alone, []model.Interface{lan6}, model.Loopback, ""},
		{"macvlan, link-local", of("::"), alone, []model.Interface{lan6}, model.Lan, ""},
		{"macvlan, on its link-local address", of("fe80::9%eth0"), alone, []model.Interface{lan6}, model.Lan, ""},
		{"ipvlan", all, plain, []model.Interface{device("ipvlan", "192.0.2.9")}, model.Lan, ""},
		{"a device of the host", all, alone, []model.Interface{device("", "192.0.2.9")}, model.Lan, ""},
		{"a dummy alone", all, alone, []model.Interface{device("dummy", "10.9.9.9")}, model.Loopback, ""},
		{"on the dummy's address, beside a network", of("10.9.9.9"), alone, []model.Interface{device("dummy", "10.9.9.9"), eth0}, model.Network, ""},
		{"on the dummy's address alone", of("10.9.9.9"), alone, []model.Interface{device("dummy", "10.9.9.9")}, model.Loopback, ""},
		{"published, and macvlan", all, open, []model.Interface{eth0, lan0}, model.Published, "0.0.0.0:8080 [::]:8080"},
		{"published for the host alone, and macvlan", all, inside, []model.Interface{eth0, lan0}, model.Lan, "127.0.0.1:8080"},
		{"published for the host alone", all, inside, []model.Interface{eth0}, model.Published, "127.0.0.1:8080"},
		{"IPv6 only, where there is none", only6, open, []model.Interface{eth0}, model.Loopback, ""},
		{"IPv6 only", only6, open6, []model.Interface{both0}, model.Published, "[::]:8080"},
		{"IPv4 only, beside IPv6", all, open6, []model.Interface{both0}, model.Published, "0.0.0.0:8080"},
		{"the IPv6 address has gone", of("::"), open6, []model.Interface{eth0}, model.Published, "0.0.0.0:8080 [::]:8080"},
		{"a network of IPv6 alone", of("::"), container([]string{"fd00::2"}, "[::]:8080"), []model.Interface{device("veth", "fd00::2")}, model.Published, "[::]:8080"},
		{"a network of IPv6 alone, and an IPv4 server", all, container([]string{"fd00::2"}, "[::]:8080"), []model.Interface{device("veth", "fd00::2")}, model.Loopback, ""},
		{"host", host, alone, []model.Interface{}, model.Host, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Of(test.listening, Namespace{Containers: []*model.Container{test.container}, Interfaces: test.interfaces})
			if published := strings.Join(got.Published, " "); got.Exposure != test.want || published != test.published {
				t.Errorf("%s %q, want %s %q", got.Exposure, published, test.want, test.published)
			}
		})
	}
}
