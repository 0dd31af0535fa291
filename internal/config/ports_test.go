package config

import (
	"strings"
	"testing"
)

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]struct{ in, out []uint16 }{
		"":                 {[]uint16{1, 80, 65535}, nil},
		" , ":              {[]uint16{1, 65535}, nil},
		"80":               {[]uint16{80}, []uint16{79, 81}},
		"80,443 8000-8002": {[]uint16{80, 443, 8000, 8001, 8002}, []uint16{7999, 8003, 1}},
		"1-65535":          {[]uint16{1, 65535}, nil},
		"\t65535\n":        {[]uint16{65535}, []uint16{1}},
	} {
		p, err := ParsePorts(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		for _, number := range want.in {
			if !p.Contains(number) {
				t.Errorf("%q lacks %d", text, number)
			}
		}
		for _, number := range want.out {
			if p.Contains(number) {
				t.Errorf("%q contains %d", text, number)
			}
		}
	}
	for _, text := range []string{"0", "65536", "http", "80-", "-80", "90-80", "80:90", "1-2-3", "+80", "80.5"} {
		if _, err := ParsePorts("443," + text); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "65535") {
			t.Errorf("%q: error %v, want one that names it and what is allowed", text, err)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add("80,443 8000-8002")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePorts(text); err == nil && p.Contains(0) && len(p.ranges) > 0 {
			t.Errorf("%q contains port 0", text)
		}
	})
}
