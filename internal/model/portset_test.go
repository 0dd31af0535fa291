package model

import (
	"strings"
	"testing"
)

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]struct{ in, out []uint16 }{
		"":                 {nil, []uint16{1, 80, 65535}},
		" , ":              {nil, []uint16{1, 65535}},
		"80":               {[]uint16{80}, []uint16{79, 81}},
		"80,443 8000-8002": {[]uint16{80, 443, 8000, 8001, 8002}, []uint16{7999, 8003, 1}},
		"1-65535":          {[]uint16{1, 65535}, nil},
		"\t65535\n":        {[]uint16{65535}, []uint16{1}},
	} {
		p, err := ParsePorts(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		for _, protocol := range []Protocol{TCP, UDP} {
			for _, number := range want.in {
				if !p.Contains(protocol, number) {
					t.Errorf("%q lacks %d/%v", text, number, protocol)
				}
			}
			for _, number := range want.out {
				if p.Contains(protocol, number) {
					t.Errorf("%q contains %d/%v", text, number, protocol)
				}
			}
		}
	}
	for _, text := range []string{"0", "65536", "http", "80-", "-80", "80:90", "1-2-3", "+80", "80.5", "80/", "80/sctp", "80/TCP", "/tcp", "80/tcp/udp", "1-2/tcp-3"} {
		if _, err := ParsePorts("443," + text); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "65535") {
			t.Errorf("%q: error %v, want one that names it and what is allowed", text, err)
		}
	}
}

func TestPortsOfOneProtocol(t *testing.T) {
	set, err := ParsePorts("53/udp 80/tcp,9000-9100/tcp 123")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		number   uint16
		tcp, udp bool
	}{{53, false, true}, {80, true, false}, {8999, false, false}, {9000, true, false}, {9100, true, false}, {9101, false, false}, {123, true, true}} {
		if set.Contains(TCP, test.number) != test.tcp || set.Contains(UDP, test.number) != test.udp {
			t.Errorf("%d: tcp is %v, udp is %v", test.number, !test.tcp, !test.udp)
		}
	}
	if got, want := set.String(), "53/udp,80/tcp,9000-9100/tcp,123"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !(PortSet{}).Empty() || set.Empty() || OnePort(0, 53).String() != "53" {
		t.Error("which sets are empty is wrong")
	}
	for _, test := range []struct {
		protocol Protocol
		number   uint16
		want     bool
	}{{0, 0, true}, {UDP, 0, true}, {UDP, 80, false}, {0, 80, true}, {0, 81, false}} {
		if set.mayContain(test.protocol, test.number) != test.want {
			t.Errorf("may contain %d of %v: %v", test.number, test.protocol, !test.want)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add("80,443 8000-8002", uint16(80))
	f.Add("53/udp 9000-9100/tcp", uint16(53))
	f.Fuzz(func(t *testing.T, text string, number uint16) {
		set, err := ParsePorts(text)
		if err != nil {
			return
		}
		if set.Contains(TCP, 0) || set.Contains(UDP, 0) {
			t.Errorf("%q contains port 0", text)
		}
		again, err := ParsePorts(set.String())
		if err != nil {
			t.Fatalf("%q gives %q: %v", text, set, err)
		}
		for _, protocol := range []Protocol{TCP, UDP} {
			if set.Contains(protocol, number) != again.Contains(protocol, number) {
				t.Errorf("%q and %q differ in %d/%v", text, set, number, protocol)
			}
		}
	})
}
