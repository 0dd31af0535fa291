package exposure

import (
	"net/netip"
	"testing"

	"portwatcher/internal/model"
)

func TestForwardOf(t *testing.T) {
	web := &model.Container{ID: "a", Name: "web", Ports: []model.PublishedPort{
		{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")},
		{Protocol: model.TCP, Port: 81, Host: netip.MustParseAddrPort("127.0.0.1:8081")},
		{Protocol: model.UDP, Port: 82, Host: netip.MustParseAddrPort("[::]:8082")},
	}}
	all := func(yield func(*model.Container) bool) { yield(web) }
	holder := []model.Process{{PID: 1, Name: "x", Executable: "/usr/bin/docker-proxy"}}
	for _, c := range []struct {
		protocol model.Protocol
		at       string
		only6    bool
		want     uint16 // the port inside; 0: none
	}{
		{model.TCP, "0.0.0.0:8080", false, 80},
		{model.TCP, "127.0.0.1:8080", false, 80},
		{model.TCP, "[::]:8080", false, 80},
		{model.TCP, "[::]:8080", true, 0},
		{model.TCP, "[::1]:8080", false, 0},
		{model.UDP, "0.0.0.0:8080", false, 0},
		{model.TCP, "127.0.0.1:8081", false, 81},
		{model.TCP, "127.0.0.2:8081", false, 0},
		{model.TCP, "0.0.0.0:8081", false, 81},
		{model.UDP, "[::]:8082", true, 82},
		{model.UDP, "[fe80::1]:8082", false, 82},
		{model.UDP, "0.0.0.0:8082", false, 0},
		{model.TCP, "0.0.0.0:8083", false, 0},
	} {
		at := netip.MustParseAddrPort(c.at)
		f := ForwardOf(Listening{Protocol: c.protocol, Address: at.Addr(), Port: at.Port(), IPv6Only: c.only6, Host: true}, holder, all)
		if c.want == 0 && f != nil || c.want != 0 && (f == nil || f.Port != c.want || !f.Engine) {
			t.Errorf("%s %s, IPv6 only %t: %+v, want port %d", c.protocol, c.at, c.only6, f, c.want)
		}
	}
	if f := ForwardOf(Listening{Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 8080}, nil, all); f != nil {
		t.Errorf("without a known process: %+v, want none", f)
	}
}
