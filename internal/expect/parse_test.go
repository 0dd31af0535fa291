package expect

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

func TestParse(t *testing.T) {
	f := parsed(t, `# the ports of the shop
version: 1
expect:
  - target: shop/web            # comments are kept
    port: 80/tcp
    exposure: published
    process: nginx
    reason: the public site
    until: 2027-06-30
  - {target: "*, !noisy", port: 8080, exposure: network, outside: false, process: "node, /usr/bin/bun"}
  - target: shop/db
    port: 5432/tcp,5432/udp
    exposure: network
    required: true
    for: 1m30s
`)
	if len(f.Entries) != 3 {
		t.Fatalf("%d entries, want 3", len(f.Entries))
	}
	web, any, db := f.Entries[0], f.Entries[1], f.Entries[2]
	if web.Line != 4 || web.Target.String() != "shop/web" || web.Ports.String() != "80/tcp" || web.Exposure != model.Published || web.Reason != "the public site" ||
		web.LastDay() != "2027-06-30" || !web.Until.Equal(time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)) || web.Required || web.For != DefaultFor || web.Inside {
		t.Errorf("the first is %+v", web)
	}
	if any.Line != 10 || !any.Inside || !slices.Equal(any.Processes, []string{"node", "/usr/bin/bun"}) || any.LastDay() != "" {
		t.Errorf("the second is %+v", any)
	}
	if !db.Required || db.For != 90*time.Second || !f.required[portOf{model.UDP, 5432}] || f.required[portOf{model.TCP, 80}] {
		t.Errorf("the third is %+v, required %v", db, f.required)
	}
	if f := parsed(t, "version: 1\nexpect: []\n"); len(f.Entries) != 0 {
		t.Errorf("an empty list has %+v", f.Entries)
	}
}

// Each mistake is one line with the file, the line, the field, the value and what is allowed.
func TestParseErrors(t *testing.T) {
	const head = "version: 1\nexpect:\n"
	for content, want := range map[string]string{
		"":                                        "f.yaml: it is empty; allowed is a file that begins with version: 1",
		"version: 2\nexpect: []\n":                `f.yaml:1: version: "2": allowed is 1`,
		"expect: []\n":                            "f.yaml:1: version: it is missing; allowed is 1",
		"version: 1\n":                            "f.yaml:1: expect: it is missing; allowed is a list",
		"version: 1\nexpect: web\n":               `f.yaml:2: expect: it is "web"; allowed is a list of entries`,
		"version: 1\nexpect:\n":                   `f.yaml:2: expect: it is empty; allowed is a list of entries`,
		"version: 1\nports: []\nexpect: []\n":     "f.yaml:2: ports: no such field; allowed are version and expect",
		"version: 1\nexpect: []\nexpect: []\n":    "f.yaml:3: expect: it is given twice, first in line 2",
		"version: 1\nexpect: []\n---\nversion: 1": "f.yaml:3: a second document begins",
		"[1]":                                     "f.yaml:1: it is a list; allowed is a mapping",
		"version: [":                              "it is not valid YAML",
		"version: 1\nexpect:\n  - *x\n":           "put text that begins with * or ! in quotes",
		head + "  - web\n":                        `f.yaml:3: expect: it is "web"; allowed is a mapping with the fields target, port, exposure`,
		head + "  - {target: web, port: 80}\n":    "f.yaml:3: exposure: it is missing; allowed are loopback, network, lan, published, host",
		head + "  - {target: web, exposure: lan}": "f.yaml:3: port: it is missing; allowed are ports and ranges",
		head + "  - {port: 80, exposure: lan}\n":  "f.yaml:3: target: it is missing; allowed are names",
		head + "  - target: web\n    port: http\n    exposure: lan\n":                                `f.yaml:4: port: "http": allowed are ports from 1 to 65535`,
		head + "  - {target: web, port: '80,90-80', exposure: lan}\n":                                `f.yaml:3: port: "80,90-80": entry "90-80": the range is the wrong way round`,
		head + "  - {target: web, port: 80, exposure: public}\n":                                     `f.yaml:3: exposure: "public": allowed are loopback, network`,
		head + "  - {target: 'a/b/c', port: 80, exposure: lan}\n":                                    `f.yaml:3: target: "a/b/c": allowed is project/service`,
		head + "  - {target: '', port: 80, exposure: lan}\n":                                         `f.yaml:3: target: "": allowed are`,
		head + "  - {target: web, port: 80, exposure: lan, outside: maybe}\n":                        `f.yaml:3: outside: "maybe": allowed are true and false`,
		head + "  - {target: web, port: 80, exposure: lan, until: 30.6.2027}\n":                      `f.yaml:3: until: "30.6.2027": allowed is the last day`,
		head + "  - {target: web, port: 80, exposure: lan, process: ','}\n":                          `f.yaml:3: process: ",": allowed are names`,
		head + "  - {target: web, port: 80/tcp, exposure: lan, required: true, for: 2d}\n":           `f.yaml:3: for: "2d": allowed are 0 to 24h`,
		head + "  - {target: web, port: 80/tcp, exposure: lan, for: 2s}\n":                           "f.yaml:3: for: it has a meaning only with required: true",
		head + "  - {target: web, port: 80, exposure: lan, required: true}\n":                        "single ports with a protocol",
		head + "  - {target: web, port: 80-81/tcp, exposure: lan, required: true}\n":                 "single ports with a protocol",
		head + "  - {target: web, ports: 80, exposure: lan}\n":                                       "f.yaml:3: ports: no such field; allowed are target, port",
		head + "  - {target: web, port: [80], exposure: lan}\n":                                      "f.yaml:3: port: it is a list; allowed is text",
		head + "  - {target: web, port: 80, exposure: lan, reason: \"a\\tb\"}\n":                     "allowed is text without control characters",
		head + "  - {target: !x web, port: 80, exposure: lan}\n":                                     "allowed is text, and quotes around",
		head + strings.Repeat("  - {target: web}\n", 30):                                             "and 40 more problems",
		head + "  - {target: web, port: 80, exposure: lan}\n  - {target: web, port: x, exposure: y}": `f.yaml:4: exposure: "y"`,
	} {
		f, err := Parse("f.yaml", []byte(content))
		if err == nil || f != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: file %v, error %v; want %q in it", content, f, err, want)
			continue
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%q: no *Error in %v", content, err)
		}
	}
	if _, err := Parse("a\nb", nil); !strings.HasPrefix(err.Error(), `"a\nb": `) {
		t.Errorf("a name of two lines: %v", err)
	}
}

func TestParseLabel(t *testing.T) {
	all, err := ParseLabel("80/tcp@published, 9000-9100@network")
	if err != nil || len(all) != 2 || all[1].Ports.String() != "9000-9100" || all[0].Exposure != model.Published {
		t.Errorf("%+v, error %v", all, err)
	}
	for _, wrong := range []string{"80", "80@", "@network", "80@public", "x@network", "80/tcp@network@lan", "80@network 81"} {
		if _, err := ParseLabel(wrong); err == nil || !strings.Contains(err.Error(), "9000-9100/tcp@network") {
			t.Errorf("%q: error %v", wrong, err)
		}
	}
}

// FuzzParse: a file is refused with errors of one line each, or can be used.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		shop, onlyWeb, "", "version: 1\nexpect: []\n", "version: 1\nexpect:\n- {target: '*', port: 1-2/udp, exposure: host, until: 2026-01-01}\n",
		"version: 1\nexpect:\n  - &a {target: a, port: 1, exposure: lan}\n  - *a\n", "\xff", "a: !!binary x", "version: 1\nexpect:\n  - target: \"a\\x00\"\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := Parse("f.yaml", content)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "f.yaml") && !strings.HasPrefix(line, "and ") {
					t.Errorf("%q: the error has the line %q", content, line)
				}
			}
			return
		}
		ref := (&model.Container{ID: "x", Name: "web", Labels: map[string]string{Label: string(content)}}).Ref()
		Compare(file, State{Time: began, Open: []model.Open{{Listener: listener(ref, 80, model.Published, "nginx")}}, Containers: []*model.ContainerRef{ref}})
		if differences := Diff(file, file); len(differences) > 0 {
			t.Errorf("%q differs from itself: %q", content, differences)
		}
		e := &model.Event{ID: 7, Type: model.Opened, Listener: listener(ref, 12345, model.Network, "nginx")}
		changed, err := Approve("f.yaml", content, e, "because", began)
		if err != nil {
			return // of how it is written; the error has the lines
		}
		if after, err := Parse("f.yaml", changed); err != nil || len(after.Entries) != len(file.Entries)+1 {
			t.Errorf("%q was made %q: error %v", content, changed, err)
		}
	})
}
