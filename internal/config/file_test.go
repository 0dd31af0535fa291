package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/internal/filewatch"
	"portwatcher/internal/model"
)

// write makes a file in a folder of the test's own.
func write(t testing.TB, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFile(t *testing.T) {
	const changed = "2s"
	for name, content := range map[string]string{
		"plain":            "close_grace: 2s\n",
		"quoted":           "close_grace: \"2s\"",
		"CRLF and comment": "# x\r\nclose_grace: 2s # y\r\n",
		"byte order mark":  "\ufeffclose_grace: 2s\n",
		"marked document":  "---\nclose_grace: 2s\n...\n# end\n",
		"JSON":             `{"close_grace": "2s"}`,
		"block text":       "close_grace: >-\n  2s\n",
		"anchor":           "close_grace: &grace 2s\n",
		"unused keys":      "close_grace: 2s\nhost_name: n\n",
	} {
		got, err := load(t, []string{"--config", write(t, content)}, nil)
		if err != nil || formatDuration(got.CloseGrace) != changed {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for name, content := range map[string]string{
		"empty": "", "comments": "# nothing\n\n  # here\n", "blank": "\n \n", "empty document": "---\n", "null": "~\n", "no key": "{}\n",
	} {
		got, err := load(t, []string{"--config", write(t, content)}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got.origins, got.ConfigFile = nil, ""
		for setting, text := range texts(defaults()) {
			if got := lookup(setting).text(got); got != text {
				t.Errorf("%s: %s is %q, want %q", name, setting, got, text)
			}
		}
	}
}

// Each form in which a file can give a value.
func TestFileValues(t *testing.T) {
	for content, want := range map[string]string{
		"monitor_containers: web, !db":          "web,!db",
		"monitor_containers: 'web, !db'":        "web,!db",
		"monitor_containers: [web, '!db', 12]":  "web,12,!db",
		"monitor_containers:\n- web*\n- \"!d\"": "web*,!d",
		"monitor_containers: label:a=b":         "label:a=b",
		"monitor_containers: [label:a=b, p/s]":  "label:a=b,p/s",
		"monitor_containers: 12345678901e":      "12345678901e",
		"monitor_containers: 1234567890e2":      "1234567890e2",
		"monitor_containers: 'true'":            "true",
		"monitor_containers: []":                "",
		"monitor_containers: ''":                "",
		"monitor_containers: |\n  web\n  db\n":  "web,db",
		"watch_ports: 80":                       "80",
		"watch_ports: 80,443 53/udp":            "80,443,53/udp",
		"watch_ports: [80, 8000-8100/tcp]":      "80,8000-8100/tcp",
		"udp_clients: true":                     "true",
		"udp_clients: True":                     "true",
		"udp_clients: yes":                      "true",
		"udp_clients: no":                       "false",
		"burst_scans: 5":                        "5",
		"burst_scans: '5'":                      "5",
		"close_grace: 0":                        "0",
		"retain: 0":                             "0",
		"retain: 14d":                           "14d",
		"retain: 2w":                            "14d",
		"retain: 36h":                           "36h",
		"retain_size: 5000000":                  "5MB",
		"retain_size: 1 GiB":                    "1GiB",
		"retain_size: 1234567":                  "1234567",
		"host_name: 007":                        "007",
		"host_name: ''":                         "",
		"health_socket: ''":                     "",
		"health_socket: '@x'":                   "@x",
		"log_level: warning":                    "warn",
		"state: memory":                         "memory",
		"docker_host: unix:///run/docker.sock":  "unix:///run/docker.sock",
	} {
		got, err := load(t, []string{"--config", write(t, content)}, nil)
		if err != nil {
			t.Errorf("%s: %v", content, err)
			continue
		}
		name := strings.ReplaceAll(content[:strings.Index(content, ":")], "_", "-")
		if text := lookup(name).text(got); text != want {
			t.Errorf("%s: got %q, want %q", content, text, want)
		}
	}
}

func TestFileErrors(t *testing.T) {
	const duration = "allowed are 10ms to 1h, with a unit as in 500ms or 2s"
	const ports = "allowed are ports from 1 to 65535 and ranges such as 8000-8100, each with /tcp, /udp or neither, separated by commas or blanks"
	for _, test := range []struct {
		name, content string
		want          []string // behind "FILE"
	}{
		{"value", "\n# comment\nscan_interval: soon\n", []string{`:3: scan_interval: "soon": ` + duration}},
		{"no unit", "scan_interval: 5\n", []string{`:1: scan_interval: "5": ` + duration}},
		{"bounds", "burst_scans: 101\n", []string{`:1: burst_scans: "101": allowed are 1 to 100`}},
		{"item of a list", "watch_ports:\n  - 80\n  - http\n  - 70000/tcp\n", []string{`:3: watch_ports: "http": ` + ports, `:4: watch_ports: "70000/tcp": ` + ports}},
		{"several", "format: xml\nretain: 1\nclose_grace: 1s\nlog_level: loud\n", []string{
			`:1: format: "xml": allowed are text, json`,
			`:2: retain: "1": allowed are 0 (for ever) and 1h to 3650d, with units as in 36h, 30d and 2w`,
			`:4: log_level: "loud": allowed are error, warn, info, debug, trace`,
		}},
		{"unknown", "close_grce: 2s\nCLOSE-GRACE: 2s\nnothing_like_it: 1\nSCAN_INTERVAL: 1\n? [a]\n: b\n", []string{
			`:1: close_grce: no such setting; did you mean close_grace?`,
			`:2: CLOSE-GRACE: no such setting; did you mean close_grace?`,
			`:3: nothing_like_it: no such setting`,
			`:4: SCAN_INTERVAL: no such setting; did you mean scan_interval?`,
			`:5: a key is a list; allowed are the names of settings`,
		}},
		{"empty key", "'': 1\n\"a\\nb\": 2\n", []string{`:1: no such setting`, `:2: "a\nb": no such setting`}},
		{"twice", "format: text\nformat: json\n", []string{`:2: format: it is given twice, first in line 1; allowed is once`}},
		{"outside", "config: /x\n", []string{`:1: config: it cannot be set in the file; allowed are --config and PORTWATCHER_CONFIG, CONFIG_FILE`}},
		{"mapping", "close_grace:\n  seconds: 2\n", []string{`:2: close_grace: it is a mapping; allowed is text: ` + usages[CloseGrace]}},
		{"list", "\nclose_grace: [2s]\n", []string{`:2: close_grace: it is a list; allowed is text: ` + usages[CloseGrace]}},
		{"list in a list", "watch_ports: [80, [443]]\n", []string{`:1: watch_ports: it is a list; allowed is text and a list of texts: ` + usages[WatchPorts]}},
		{"null", "host_name:\nudp_clients: ~\n", []string{
			`:1: host_name: it has no value; leave the key out for the default, or write "" for empty; allowed is text: ` + usages[HostName],
			`:2: udp_clients: it has no value; leave the key out for the default, or write "" for empty; allowed is true and false: ` + usages[UDPClients],
		}},
		{"truth value", "host_name: true\nformat: false\n", []string{
			`:1: host_name: true is true or false in YAML; allowed is text, in quotes where it has another meaning: ` + usages[HostName],
			`:2: format: false is true or false in YAML; allowed is text, in quotes where it has another meaning: ` + usages[Format],
		}},
		{"no switch", "udp_clients: 2\n", []string{`:1: udp_clients: "2": allowed are true, 1, yes, false, 0, no`}},
		{"tag", "monitor_containers: !db\nhost_name: !!binary aGk=\n", []string{
			`:1: monitor_containers: !db is a tag of YAML; put text that begins with ! in quotes`,
			`:2: host_name: !!binary is a tag of YAML; put text that begins with ! in quotes`,
		}},
		{"tag in a list", "monitor_containers:\n  - web\n  - !db\n", []string{`:3: monitor_containers: !db is a tag of YAML; put text that begins with ! in quotes`}},
		{"alias", "host_name: &a x\nformat: *a\n", []string{`:2: format: it is an alias; allowed is text: ` + usages[Format]}},
		{"control character", "docker_host: \"unix:///a\\nb\"\n", []string{`:1: docker_host: "unix:///a\nb": allowed is text without control characters`}},
		{"not a mapping", "# a\nclose_grace 2s\n", []string{`:2: it is the text "close_grace 2s"; allowed is one setting a line, such as close_grace: 2s`}},
		{"a list", "- a\n", []string{`:1: it is a list; allowed is one setting a line, such as close_grace: 2s`}},
		{"second document", "format: xml\n---\nformat: text\n", []string{`:1: format: "xml": allowed are text, json`, `:2: a second document begins; allowed is one`}},
		{"third document", "format: text\n--- \n---\n", []string{`:2: a second document begins; allowed is one`}},
		{"pattern without quotes", "format: text\nmonitor_containers: *web\n", []string{`: it is not valid YAML: unknown anchor 'web' referenced; put text that begins with * in quotes`}},
		{"list not closed", "format: text\nwatch_ports: [80,\nretain: 0\n", []string{`:1: it is not valid YAML in or after this line: did not find expected ',' or ']'`}},
		{"tab", "format: text\nwatch_ports:\n\t- 80\n", []string{`:3: it is not valid YAML in or after this line: found character that cannot start any token`}},
		{"indented", "format: text\n  retain: 0\n", []string{`:2: it is not valid YAML in or after this line: mapping values are not allowed in this context`}},
		{"no colon", "format: text\nretain\nclose_grace: 0\n", []string{`:2: it is not valid YAML in or after this line: could not find expected ':'`}},
		{"quote not closed", "a: 1\nb: \"x\nc: 2\nd: 3\n", []string{`:2: it is not valid YAML in or after this line: found unexpected end of stream`}},
		{"after a long list", "watch_ports: [80,\n  81,\n  82,\n  83]\nretain: 0\n- x\n", []string{`:5: it is not valid YAML in or after this line: did not find expected key`}},
		{"between long lists", "watch_ports: [80,\n  81]\nretain: {\n}\nx: [1,\n 2]\nb: 'a\n  b'\nretain: 0: 1\nx: [1,\n2]\n", []string{`:9: it is not valid YAML in or after this line: mapping values are not allowed in this context`}},
		{"first line", "}\n", []string{`: it is not valid YAML: did not find expected node content`}},
		{"control", "format: text\nretain: \x01\n", []string{`: it is not valid YAML: control characters are not allowed`}},
		{"not UTF-8", "format: text\n\nretain: \xff\n", []string{`: it is not valid YAML: invalid leading UTF-8 octet`}},
	} {
		name := write(t, test.content)
		// A flag that wins does not hide a mistake in the file.
		settings, err := load(t, []string{"--config", name, "--scan-interval=1s", "--format=text"}, nil)
		want := name + strings.Join(test.want, "\n"+name)
		var invalid *Error
		if settings != nil || !errors.As(err, &invalid) || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", test.name, err, want)
		}
	}
}

func TestFileManyErrors(t *testing.T) {
	name := write(t, strings.Repeat("a: 1\n", 30))
	_, err := load(t, []string{"--config", name, "--close-grace=x"}, nil)
	if err == nil || strings.Count(err.Error(), "\n") != maxProblems || !strings.HasSuffix(err.Error(), "\nand 11 more problems") {
		t.Errorf("got %v", err)
	}
	_, err = load(t, []string{"--config", write(t, strings.Repeat("x", 500)+": 1\n")}, nil)
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("a long key: got %v", err)
	}
}

func TestFileUnreadable(t *testing.T) {
	folder := t.TempDir()
	large := write(t, strings.Repeat("#", filewatch.MaxSize+1))
	const allowed = "; allowed is a YAML file of up to 1 MiB that portwatcher can read, and empty for none"
	for file, want := range map[string]string{
		filepath.Join(folder, "none.yaml"): "no such file or directory" + allowed,
		filepath.Join(large, "x"):          "not a directory" + allowed,
		folder:                             "is a directory" + allowed,
		"/dev/null":                        "not a regular file" + allowed,
		large:                              "larger than 1048576 bytes" + allowed,
		"/a\x00b":                          "allowed is the path of a file, and empty for none",
	} {
		for _, given := range []struct{ name, argument, variable string }{
			{"--config", "--config=" + file, "CONFIG_FILE=/other"},
			{"PORTWATCHER_CONFIG", "", "PORTWATCHER_CONFIG=" + file},
			{"CONFIG_FILE", "", "CONFIG_FILE=" + file},
		} {
			var arguments []string
			if given.argument != "" {
				arguments = []string{given.argument}
			}
			_, err := load(t, arguments, []string{given.variable})
			if want := given.name + ": " + model.Quoted(file) + ": " + want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
	if err := os.WriteFile(large, []byte(strings.Repeat("#", filewatch.MaxSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, []string{"--config", large}, nil); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", "close_grace: 2s\n", "monitor_containers: [web, '!db']\nwatch_ports: 80", "a: &a [*a]", "- x", "a: 1\n---\nb: 2", "udp_clients: yes", "? x\n: y", "format: !t json",
		"<<: {a: 1}", "host_name: \"\\0\"", "retain: 2w\nretain_size: 1 GiB\n", "health_socket: ''", "{\"state\": \"memory\"}", "a: [1\n}", "docker_host: |\n  x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		values, _, problems := parseFile("f.yaml", content)
		for _, problem := range problems {
			if text := problem.Error(); strings.ContainsAny(text, "\n\r\x00") || strings.Contains(text, "f.yaml:0") {
				t.Errorf("%q: %q", content, text)
			}
		}
		// What was read has a form that reads as the same.
		settings, other := &Settings{}, &Settings{}
		for _, s := range table {
			v, found := values[s.key].(value)
			if !found {
				continue
			}
			if err := s.set(settings, v); err != nil {
				t.Fatalf("%q: %s: %v", content, s.key, err)
			}
			written := s.key + ": " + s.yaml(s.text(settings)) + "\n"
			again, _, problems := parseFile("again.yaml", []byte(written))
			if len(problems) > 0 || s.set(other, again[s.key].(value)) != nil || s.text(other) != s.text(settings) {
				t.Errorf("%q: %s is %q; written as %s: %v", content, s.key, s.text(settings), written, problems)
			}
		}
	})
}

// The section of alerts is passed on with its place, and is shown without its content, which
// may be a secret.
func TestAlertsSection(t *testing.T) {
	name := write(t, "close_grace: 2s\nalerts:\n  receivers:\n    - {name: ops, webhook: {url: http://hidden}}\n")
	settings, err := load(t, []string{"--config", name, "--alert-webhook=http://hidden/too"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := settings.Alerts; a.Node == nil || a.File != name || a.Line != 2 || len(a.Node.Content) != 2 {
		t.Errorf("got %+v", a)
	}
	var yaml, object strings.Builder
	if err := errors.Join(WriteYAML(&yaml, settings), WriteJSON(&object, settings)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{yaml.String(), object.String()} {
		if strings.Contains(text, "hidden") || !strings.Contains(text, "(as in the file)") || !strings.Contains(text, "(secret)") {
			t.Error(text)
		}
	}
	for content, want := range map[string]string{
		"alert: {}":                     ":1: alert: no such setting; did you mean alerts?",
		"alerts: {}\nalerts: ":          ":2: alerts: it is given twice, first in line 1",
		"alert_webhook: x://secret":     `alert_webhook: "(secret)": allowed are http`,
		"smtp_url: http://secret":       `smtp_url: "(secret)": allowed are smtp`,
		"alert_email: 'a@b.c, <d@e.f>'": "alert_email: \"a@b.c, <d@e.f>\": allowed are addresses",
	} {
		if _, err := load(t, []string{"--config", write(t, content)}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", content, err, want)
		}
	}
}
