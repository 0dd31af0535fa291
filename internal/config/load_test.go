package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// samples are values of each setting that differ from the default and from the
// one of the next form: of the file, the short variable, the long one, the flag.
var samples = map[string]struct{ file, short, long, flag string }{
	MonitorContainers: {"[web, 'db-*']", "shop/web", "!noisy", "label:a=b"},
	WatchPorts:        {"[80, 53/udp]", "443", "1-2/tcp", "8080"},
	Source:            {"netlink", "1", "ebpf", "netlink"},
	ScanInterval:      {"2s", "3", "4s", "5s"},
	BurstScans:        {"2", "3", "4", "5"},
	BurstDelay:        {"2s", "3", "4s", "5s"},
	CloseGrace:        {"2s", "3000", "4s", "5s"},
	UDPClients:        {"true", "", "false", "true"},
	ProcessArguments:  {"true", "", "false", "true"},
	BurstLimit:        {"2", "", "4", "5"},
	ReceiveBuffers:    {"8MiB", "", "16MiB", "32MiB"},
	Format:            {"json", "", "text", "json"},
	LogFormat:         {"json", "", "text", "json"},
	LogLevel:          {"debug", "", "error", "trace"},
	DockerHost:        {"tcp://h:2", "tcp://h:3", "tcp://h:4", "tcp://h:5"},
	HostName:          {"n2", "", "n4", "n5"},
	ProcRoot:          {"/p2", "", "/p4", "/p5"},
	CgroupRoot:        {"/c2", "", "/c4", "/c5"},
	HealthSocket:      {"'@h2'", "", "", "@h5"},         // an empty variable counts
	Expect:            {"/e2.yaml", "", "", "/e5.yaml"}, // an empty variable counts
	State:             {"memory", "/s3.json", "/s4.db", "/s5.db"},
	Retain:            {"2d", "", "4d", "5d"},
	RetainSize:        {"2GB", "", "4GB", "5GB"},
	Listen:            {"':2'", "", "", "h:5"}, // an empty variable counts
	TokenFile:         {"/t2", "", "/t4", "/t5"},
	TLSCert:           {"/t2", "", "/t4", "/t5"},
	TLSKey:            {"/t2", "", "/t4", "/t5"},
	AllowedHosts:      {"[a, b.c]", "", "d", "e.f"},
	MetricsMaxSeries:  {"2", "", "4", "5"},
	Explain:           {"off", "", "on", "off"},
	Host:              {"true", "0", "true", "false"},
	PublicURL:         {"http://p2", "", "http://p4", "https://p5/x"},
	AlertWebhook:      {"http://w2", "http://w3", "http://w4", "https://w5/x"},
	AlertEmail:        {"a@b.c", "d@e.f", "g@h.i, j@k.l", "m@n.o"},
	SMTPURL:           {"'smtp://h:2'", "smtp://h:3", "smtp://h:4", "smtps://h:5"},
}

// Each setting takes its default, the file, the short variable, the long one
// and the flag, in this order.
func TestPrecedence(t *testing.T) {
	for _, s := range table {
		if s.flagOnly {
			continue
		}
		sample, found := samples[s.name]
		if !found || s.short != "" && sample.short == "" {
			t.Errorf("%s: the test has no values", s.name)
			continue
		}
		canonical := func(text, name string) string {
			settings := &Settings{}
			if err := s.set(settings, value{Text: text, Name: name}); err != nil {
				t.Errorf("%s: %q: %v", s.name, text, err)
			}
			return s.text(settings)
		}
		name := write(t, "# first line\n"+s.key+": "+sample.file+"\n")
		var arguments, environ []string
		last := ""
		check := func(want, origin string) {
			t.Helper()
			settings, err := load(t, arguments, environ)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.text(settings); got != want || got == last && last != "" || settings.origins[s.name] != origin {
				t.Errorf("%s: got %q of %q, want %q of %q; before %q", s.name, got, settings.origins[s.name], want, origin, last)
			}
			last = want
		}
		check(canonical(s.standard, ""), "default")
		arguments = []string{"--config", name}
		check(canonical(strings.NewReplacer("'", "", "[", "", "]", "").Replace(sample.file), ""), "file "+name+":2")
		if s.short != "" {
			environ = append(environ, s.short+"="+sample.short)
			check(canonical(sample.short, s.short), "environment "+s.short)
		}
		environ = append(environ, s.variable()+"="+sample.long)
		check(canonical(sample.long, ""), "environment "+s.variable())
		arguments = append(arguments, "--"+s.name+"="+sample.flag)
		check(canonical(sample.flag, ""), "flag --"+s.name)
	}
}

// USE_PROC=0 has no effect, so that the file's value stays.
func TestNoValue(t *testing.T) {
	name := write(t, "source: netlink\n")
	settings, err := load(t, []string{"--config", name}, []string{"USE_PROC=0"})
	if err != nil || settings.Source != "netlink" || settings.origins[Source] != "file "+name+":1" {
		t.Errorf("got %+v, %v", settings, err)
	}
}

func TestWhichFile(t *testing.T) {
	standard, other := write(t, "host_name: standard\n"), write(t, "host_name: other\n")
	none := filepath.Join(t.TempDir(), "none.yaml")
	for _, test := range []struct {
		name               string
		standard           string
		arguments, environ []string
		file, hostName     string
	}{
		{"standard", standard, nil, nil, standard, "standard"},
		{"standard is not there", none, nil, nil, none, ""},
		{"flag", standard, []string{"--config", other}, []string{"PORTWATCHER_CONFIG=" + none, "CONFIG_FILE=" + none}, other, "other"},
		{"long", standard, nil, []string{"PORTWATCHER_CONFIG=" + other, "CONFIG_FILE=" + none}, other, "other"},
		{"short", standard, nil, []string{"CONFIG_FILE=" + other}, other, "other"},
		{"none by flag", standard, []string{"--config="}, nil, "", ""},
		{"none by variable", standard, nil, []string{"PORTWATCHER_CONFIG=", "CONFIG_FILE=" + none}, "", ""},
		{"short is empty", standard, nil, []string{"CONFIG_FILE="}, standard, "standard"},
	} {
		l := loader(t, test.arguments, test.environ)
		l.defaultFile = test.standard
		settings, err := l.Load()
		if err != nil || settings.ConfigFile != test.file || settings.HostName != test.hostName {
			t.Errorf("%s: got %+v, %v", test.name, settings, err)
		}
	}
}

// A file that is there is read, also by its standard name.
func TestStandardFileUnreadable(t *testing.T) {
	l := loader(t, nil, nil)
	l.defaultFile = t.TempDir()
	if _, err := l.Load(); err == nil || !strings.HasPrefix(err.Error(), `--config: "`+l.defaultFile+`": is a directory`) {
		t.Errorf("got %v", err)
	}
}

func TestReload(t *testing.T) {
	name := write(t, "close_grace: 1s\nhost_name: a\nstate: memory\nformat: json\n")
	l := loader(t, []string{"--config", name, "--format=text"}, nil)
	rewrite := func(content string) (*Settings, error) {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return l.Load()
	}
	old, err := l.Load()
	if err != nil {
		t.Fatal(err)
	}
	if l.FileChanged() {
		t.Error("the file is as it was loaded")
	}
	if _, err := rewrite("close_grace: x\n"); err == nil || err.Error() != name+`:1: close_grace: "x": allowed are 0 to 1h, with a unit as in 500ms or 2s` {
		t.Errorf("got %v", err)
	}
	settings, err := rewrite("close_grace: 2s\nhost_name: b\nformat: text\n")
	if err != nil {
		t.Fatal(err)
	}
	if settings.CloseGrace != 2*time.Second || old.CloseGrace != time.Second {
		t.Errorf("close grace is %v, and was %v", settings.CloseGrace, old.CloseGrace)
	}
	if got, want := settings.Restart(old), []string{HostName, State}; !slices.Equal(got, want) {
		t.Errorf("restart for %q, want %q", got, want)
	}
	if got := settings.Restart(settings); got != nil {
		t.Errorf("restart for %q without a change", got)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if !l.FileChanged() {
		t.Error("the file was removed")
	}
	if _, err := l.Load(); err == nil {
		t.Error("a named file that is gone is no error")
	}
}

func TestReloadable(t *testing.T) {
	var got []string
	for _, s := range table {
		if s.reloadable {
			got = append(got, s.name)
		}
	}
	want := []string{MonitorContainers, WatchPorts, ScanInterval, BurstScans, BurstDelay, CloseGrace, UDPClients, BurstLimit, ReceiveBuffers, LogFormat, LogLevel, Retain, RetainSize, PublicURL, AlertWebhook, AlertEmail, SMTPURL}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
