package wait

import (
	"reflect"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

func TestParseTarget(t *testing.T) {
	id := strings.Repeat("0f", 32)
	for text, want := range map[string]Target{
		"web:80":             {"web", 80, 0, model.Selection{}},
		"web:80/tcp":         {"web", 80, model.TCP, model.Selection{}},
		"shop/web:53/udp":    {"shop/web", 53, model.UDP, model.Selection{}},
		"shop*/*:65535":      {"shop*/*", 65535, 0, model.Selection{}},
		"*:1":                {"*", 1, 0, model.Selection{}},
		id + ":443":          {id, 443, 0, model.Selection{}},
		"web-?:80":           {"web-?", 80, 0, model.Selection{}},
		"label:a=b:80":       {"label:a=b", 80, 0, model.Selection{}},
		"a.b_c-d:8080/tcp":   {"a.b_c-d", 8080, model.TCP, model.Selection{}},
		"0f0f0f0f0f0f:9/udp": {"0f0f0f0f0f0f", 9, model.UDP, model.Selection{}},
	} {
		got, err := ParseTarget(text)
		got.selection = model.Selection{}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, error %v; want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for text, allowed := range map[string]string{
		"":               "CONTAINER:PORT",
		"web":            "CONTAINER:PORT",
		":80":            "containers",
		"web:":           "1 to 65535",
		"web:0":          "1 to 65535",
		"web:65536":      "1 to 65535",
		"web:-1":         "1 to 65535",
		"web:+80":        "1 to 65535",
		"web:80-90":      "1 to 65535",
		"web:http":       "1 to 65535",
		"web:80/":        "tcp and udp",
		"web:80/TCP":     "tcp and udp",
		"web:80/sctp":    "tcp and udp",
		"a/b/c:80":       "project/service",
		"/web:80":        "project/service",
		"web\x1b[2J:80":  "names",
		"web:80/tcp/udp": "tcp and udp",
		"wéb:80":         "names",
	} {
		_, err := ParseTarget(text)
		if err == nil || !strings.Contains(err.Error(), allowed) || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q: error %v; want one line with %q in it", text, err, allowed)
		}
	}
}

// What is read can be asked for everywhere: it is written as it was, and a
// selection of containers takes it.
func FuzzParseTarget(f *testing.F) {
	for _, text := range []string{"web:80", "shop/web:53/udp", "*:1/tcp", "a:b:80", "web:080", "", ":", "\x00:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := ParseTarget(text)
		if err != nil {
			if !strings.Contains(err.Error(), "allowed") {
				t.Errorf("%q: the error does not name what is allowed: %v", text, err)
			}
			return
		}
		again, err := ParseTarget(target.String())
		if err != nil || again.String() != target.String() {
			t.Errorf("%q: %+v is written as %q, which is %+v, error %v", text, target, target, again, err)
		}
	})
}
