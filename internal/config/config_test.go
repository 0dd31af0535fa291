package config

import (
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"portwatcher/internal/model"
)

// load parses a command line with all settings, and an environment.
func load(t *testing.T, arguments, environ []string) (*Settings, error) {
	t.Helper()
	return loader(t, arguments, environ).Load()
}

// loader returns a loader of all settings whose default file does not exist.
func loader(t testing.TB, arguments, environ []string) *Loader {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	Register(flags, Names()...)
	if err := flags.Parse(arguments); err != nil {
		t.Fatalf("%q: %v", arguments, err)
	}
	l := NewLoader(flags, environ)
	l.defaultFile = filepath.Join(t.TempDir(), "none.yaml")
	return l
}

// texts returns each setting but the file's name, as it would be written.
func texts(s *Settings) map[string]string {
	all := map[string]string{}
	for _, one := range table {
		if one.name != ConfigFile {
			all[one.name] = one.text(s)
		}
	}
	return all
}

func defaults() *Settings {
	return &Settings{
		Source: "auto", BurstScans: 1, BurstDelay: 10 * time.Millisecond, ScanInterval: 500 * time.Millisecond, Format: "text", LogFormat: "text", LogLevel: logrus.InfoLevel,
		ProcRoot: "/proc", CgroupRoot: "/sys/fs/cgroup", HealthSocket: "@portwatcher",
		Expect: "/etc/portwatcher/expected.yaml", State: "/var/lib/portwatcher/portwatcher.db", Retain: 30 * 24 * time.Hour, RetainSize: 1e9,
		Listen: "127.0.0.1:9888", MetricsMaxSeries: 5000, Explain: "on", ReceiveBuffers: 256 << 20,
	}
}

func TestLoad(t *testing.T) {
	for _, test := range []struct {
		name      string
		arguments []string
		environ   []string
		change    func(*Settings) // to the defaults
	}{
		{"nothing", nil, nil, func(*Settings) {}},
		{"sources by flags", []string{"--source", "netlink", "--burst-scans=3", "--burst-delay", "0", "--watch-ports=80", "--watch-ports", "443"}, []string{"USE_PROC=1"}, func(s *Settings) {
			s.Source, s.BurstScans, s.BurstDelay, s.WatchPorts = "netlink", 3, 0, ports("80 443")
		}},
		{"sources by short variables", nil, []string{"USE_PROC=1", "BURST_SCANS=5", "BURST_DELAY=0.05", "WATCH_PORTS=80 8000-8100"}, func(s *Settings) {
			s.Source, s.BurstScans, s.BurstDelay, s.WatchPorts = "proc", 5, 50*time.Millisecond, ports("80 8000-8100")
		}},
		{"empty variables", nil, []string{"PORTWATCHER_SCAN_INTERVAL=", "SCAN_INTERVAL=", "CLOSE_GRACE_MS=", "DOCKER_HOST=", "MONITOR_CONTAINERS="}, func(*Settings) {}},
		{"flags", []string{
			"--scan-interval", "10ms", "--close-grace=1h", "--udp-clients", "--format", "json", "--log-format=json", "--log-level=trace",
			"--docker-host", "tcp://h:1", "--host-name", "node1", "--proc-root", "/host/proc/", "--cgroup-root", "/host/cgroup", "--health-socket=/run/health", "--expect=/e",
			"--state=memory", "--retain=1w2d12h", "--retain-size", "1.5 gib",
			"--listen=:80", "--token-file=/t", "--tls-cert=/c", "--tls-key=/k", "--allowed-hosts=A.b", "--allowed-hosts=c", "--metrics-max-series=7", "--explain=off", "--burst-limit=100", "--receive-buffers=4mib", "--process-arguments",
		}, nil, func(s *Settings) {
			*s = Settings{
				Source: "auto", BurstScans: 1, BurstDelay: 10 * time.Millisecond,
				ScanInterval: 10 * time.Millisecond, CloseGrace: time.Hour, UDPClients: true, Format: "json", LogFormat: "json",
				LogLevel: logrus.TraceLevel, DockerHost: "tcp://h:1", HostName: "node1", ProcRoot: "/host/proc", CgroupRoot: "/host/cgroup", HealthSocket: "/run/health", Expect: "/e",
				State: "memory", Retain: (9*24 + 12) * time.Hour, RetainSize: 3 << 29,
				Listen: ":80", TokenFile: "/t", TLSCert: "/c", TLSKey: "/k", AllowedHosts: []string{"a.b", "c"}, MetricsMaxSeries: 7, Explain: "off", BurstLimit: 100, ReceiveBuffers: 4 << 20, ProcessArguments: true,
			}
		}},
		{"variables", nil, []string{
			"PORTWATCHER_SCAN_INTERVAL=1h", "PORTWATCHER_CLOSE_GRACE=0", "PORTWATCHER_UDP_CLIENTS=yes", "PORTWATCHER_FORMAT=json", "PORTWATCHER_LOG_LEVEL=warning",
			"PORTWATCHER_DOCKER_HOST=unix:///x", "PORTWATCHER_HOST_NAME=n",
		}, func(s *Settings) {
			s.ScanInterval, s.UDPClients, s.Format, s.LogLevel, s.DockerHost, s.HostName = time.Hour, true, "json", logrus.WarnLevel, "unix:///x", "n"
		}},
		{"short variables", nil, []string{"SCAN_INTERVAL=0.29", "CLOSE_GRACE_MS=1500", "DOCKER_HOST=unix:///y"}, func(s *Settings) {
			s.ScanInterval, s.CloseGrace, s.DockerHost = 290*time.Millisecond, 1500*time.Millisecond, "unix:///y"
		}},
		{"bounds of short variables", nil, []string{"SCAN_INTERVAL=3600", "CLOSE_GRACE_MS=3600000"}, func(s *Settings) {
			s.ScanInterval, s.CloseGrace = time.Hour, time.Hour
		}},
		{"long before short", nil, []string{"SCAN_INTERVAL=nonsense", "PORTWATCHER_SCAN_INTERVAL=2s"}, func(s *Settings) {
			s.ScanInterval = 2 * time.Second
			s.Warnings = []string{`SCAN_INTERVAL: "nonsense": without effect, since PORTWATCHER_SCAN_INTERVAL is "2s": the longer name wins`}
		}},
		{"flag before all", []string{"--scan-interval=3s"}, []string{"SCAN_INTERVAL=0", "PORTWATCHER_SCAN_INTERVAL=x"}, func(s *Settings) { s.ScanInterval = 3 * time.Second }},
		{"flag before a variable, by its default", []string{"--udp-clients=false"}, []string{"PORTWATCHER_UDP_CLIENTS=true"}, func(*Settings) {}},
		{"USE_PROC=0 has no effect", []string{}, []string{"USE_PROC=0"}, func(*Settings) {}},
		{"journal by variables", nil, []string{"PORTWATCHER_STATE=/a//b.db", "SNAPSHOT_PATH=/other", "PORTWATCHER_RETAIN=0", "PORTWATCHER_RETAIN_SIZE=0"}, func(s *Settings) {
			s.State, s.Retain, s.RetainSize = "/a/b.db", 0, 0
			s.Warnings = []string{`SNAPSHOT_PATH: "/other": without effect, since PORTWATCHER_STATE is "/a//b.db": the longer name wins`}
		}},
		{"snapshot in a folder", nil, []string{"SNAPSHOT_PATH=/var/lib/"}, func(s *Settings) { s.State = "/var/lib/portwatcher.db" }},
		{"snapshot in a folder that exists", nil, []string{"SNAPSHOT_PATH=/etc"}, func(s *Settings) { s.State = "/etc/portwatcher.db" }},
		{"snapshot as JSON", nil, []string{"SNAPSHOT_PATH=/data/snapshot.json"}, func(s *Settings) { s.State = "/data/snapshot.db" }},
		{"health off by variable", nil, []string{"PORTWATCHER_HEALTH_SOCKET="}, func(s *Settings) { s.HealthSocket = "" }},
		{"health off by flag", []string{"--health-socket="}, []string{"PORTWATCHER_HEALTH_SOCKET=@x"}, func(s *Settings) { s.HealthSocket = "" }},
		{"first of two", nil, []string{"SCAN_INTERVAL=1", "SCAN_INTERVAL=2"}, func(s *Settings) { s.ScanInterval = time.Second }},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := load(t, test.arguments, test.environ)
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			test.change(want)
			got.origins, got.ConfigFile = nil, ""
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	const scan, grace = "allowed are 10ms to 1h", "allowed are 0 to 1h"
	const withUnit = ", with a unit as in 500ms or 2s"
	const retain = "allowed are 0 (for ever) and 1h to 3650d, with units as in 36h, 30d and 2w"
	const size = "allowed are 0 (unlimited) and 1MB to 1000TB: bytes, or with kB, MB, GB, TB, KiB, MiB, GiB, TiB"
	const health = "allowed are an absolute path and @name, each up to 107 bytes, and empty for none"
	for _, test := range []struct{ argument, variable, want string }{
		{variable: "SCAN_INTERVAL=0.001", want: `SCAN_INTERVAL: "0.001": allowed are 0.01 to 3600 (seconds)`},
		{variable: "SCAN_INTERVAL=NaN", want: `SCAN_INTERVAL: "NaN": allowed are 0.01 to 3600 (seconds)`},
		{variable: "SCAN_INTERVAL=500ms", want: `SCAN_INTERVAL: "500ms": allowed are 0.01 to 3600 (seconds)`},
		{variable: "CLOSE_GRACE_MS=-1", want: `CLOSE_GRACE_MS: "-1": allowed are 0 to 3600000 (milliseconds)`},
		{variable: "CLOSE_GRACE_MS=inf", want: `CLOSE_GRACE_MS: "inf": allowed are 0 to 3600000 (milliseconds)`},
		{variable: "PORTWATCHER_SCAN_INTERVAL=9ms", want: `PORTWATCHER_SCAN_INTERVAL: "9ms": ` + scan},
		{variable: "PORTWATCHER_CLOSE_GRACE=61m", want: `PORTWATCHER_CLOSE_GRACE: "61m": ` + grace},
		{argument: "--scan-interval=2h", want: `--scan-interval: "2h": ` + scan},
		{argument: "--scan-interval=1", want: `--scan-interval: "1": ` + scan + withUnit},
		{argument: "--scan-interval=", want: `--scan-interval: "": ` + scan + withUnit},
		{argument: "--close-grace=-1ms", want: `--close-grace: "-1ms": ` + grace},
		{argument: "--udp-clients=maybe", want: `--udp-clients: "maybe": allowed are true, 1, yes, false, 0, no`},
		{argument: "--format=xml", want: `--format: "xml": allowed are text, json`},
		{variable: "PORTWATCHER_LOG_FORMAT=JSON", want: `PORTWATCHER_LOG_FORMAT: "JSON": allowed are text, json`},
		{argument: "--log-level=panic", want: `--log-level: "panic": allowed are error, warn, info, debug, trace`},
		{variable: "DOCKER_HOST=/var/run/docker.sock", want: `DOCKER_HOST: "/var/run/docker.sock": allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT`},
		{argument: "--host-name=a\nb", want: `--host-name: "a\nb": allowed are up to 253 bytes without blanks and control characters`},
		{argument: "--proc-root=proc", want: `--proc-root: "proc": allowed is an absolute path`},
		{argument: "--cgroup-root=", want: `--cgroup-root: "": allowed is an absolute path`},
		{argument: "--docker-host=unix:///a\nb", want: `--docker-host: "unix:///a\nb": allowed is text without control characters`},
		{argument: "--proc-root=/\xff", want: `--proc-root: "/\xff": allowed is text in UTF-8`},
		{argument: "--state=memry", want: `--state: "memry": allowed are an absolute path and the word memory`},
		{variable: "SNAPSHOT_PATH=state.json", want: `SNAPSHOT_PATH: "state.json": allowed are an absolute path and the word memory`},
		{argument: "--retain=59m", want: `--retain: "59m": ` + retain},
		{argument: "--retain=3650d1ns", want: `--retain: "3650d1ns": ` + retain},
		{argument: "--retain=1y", want: `--retain: "1y": ` + retain},
		{argument: "--retain=30", want: `--retain: "30": ` + retain},
		{argument: "--retain=2d-1h", want: `--retain: "2d-1h": ` + retain},
		{argument: "--retain-size=1GBit", want: `--retain-size: "1GBit": ` + size},
		{argument: "--retain-size=999999", want: `--retain-size: "999999": ` + size},
		{argument: "--retain-size=1001TB", want: `--retain-size: "1001TB": ` + size},
		{argument: "--retain-size=" + strings.Repeat("9", 400), want: `--retain-size: "` + strings.Repeat("9", 300) + `"...: ` + size},
		{argument: "--retain-size=-1MB", want: `--retain-size: "-1MB": ` + size},
		{argument: "--health-socket=@", want: `--health-socket: "@": ` + health},
		{argument: "--health-socket=name", want: `--health-socket: "name": ` + health},
		{argument: "--health-socket=@" + strings.Repeat("x", 108), want: `--health-socket: "@` + strings.Repeat("x", 108) + `": ` + health},
		{variable: "MONITOR_CONTAINERS=web,db[", want: `MONITOR_CONTAINERS: "web,db[": entry "db[": allowed are classes as in [abc], [a-z] and [^a-z]`},
		{variable: "MONITOR_CONTAINERS=web[", want: `MONITOR_CONTAINERS: "web[": allowed are classes as in [abc], [a-z] and [^a-z]`},
		{variable: "WATCH_PORTS=90-80", want: `WATCH_PORTS: "90-80": the range is the wrong way round; allowed are ranges from the lower to the higher port, as in 80-90`},
		{variable: "WATCH_PORTS=80,90-0", want: `WATCH_PORTS: "80,90-0": entry "90-0": ` + noPorts},
		{argument: "--allowed-hosts=a:1", want: `--allowed-hosts: "a:1": allowed are host names without a port, separated by commas or blanks`},
		{variable: "DOCKER_HOST=tcp://127.0.0.1", want: `DOCKER_HOST: "tcp://127.0.0.1": allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT (the usual ports are 2375, and 2376 with TLS)`},
		{variable: "PORTWATCHER_DOCKER_HOST=http://:2375", want: `PORTWATCHER_DOCKER_HOST: "http://:2375": allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT (the usual ports are 2375, and 2376 with TLS)`},
	} {
		var arguments, environ []string
		if test.argument != "" {
			arguments = append(arguments, test.argument)
		}
		if test.variable != "" {
			environ = append(environ, test.variable)
		}
		settings, err := load(t, arguments, environ)
		var invalid *Error
		if settings != nil || !errors.As(err, &invalid) || err.Error() != test.want {
			t.Errorf("%s%s:\ngot  %v\nwant %s", test.argument, test.variable, err, test.want)
			continue
		}
		if strings.Contains(err.Error(), "\n") || errors.Unwrap(invalid) == nil {
			t.Errorf("%v: want one line, and a cause", err)
		}
	}
}

// A command is not stopped by a setting that it does not use.
func TestLoadOnlyRegistered(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags, HealthSocket)
	if flags.Lookup(ScanInterval) != nil {
		t.Error("another flag is there")
	}
	got, err := NewLoader(flags, []string{"SCAN_INTERVAL=nonsense", "PORTWATCHER_FORMAT=xml", "PORTWATCHER_HEALTH_SOCKET=@other"}).Load()
	want := defaults()
	want.HealthSocket = "@other"
	got.origins, got.ConfigFile = nil, ""
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRegisterUnknown(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Register(pflag.NewFlagSet("test", pflag.ContinueOnError), "no-such")
}

func TestRepeatedList(t *testing.T) {
	got, err := load(t, []string{"--monitor-containers", "web", "--monitor-containers=!db,cache"}, []string{"MONITOR_CONTAINERS=other"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"web": true, "cache": true, "db": false, "other": false} {
		if got.Containers.Matches(&model.ContainerRef{Name: name}, func(string) bool { return false }) != want {
			t.Errorf("%s: matches is %v", name, !want)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	got, err := load(t, nil, []string{
		"PATH=/bin", "PORTWATCHER=x", "PORTWATCHER_FORMAT=text",
		"PORTWATCHER_PORT=tcp://10.0.0.1:9888", "PORTWATCHER_PORT_9888_TCP=tcp://10.0.0.1:9888", "PORTWATCHER_PORT_9888_TCP_PROTO=tcp",
		"PORTWATCHER_PORT_9888_TCP_PORT=9888", "PORTWATCHER_PORT_9888_TCP_ADDR=10.0.0.1", "PORTWATCHER_SERVICE_HOST=10.0.0.1",
		"PORTWATCHER_SERVICE_PORT=9888", "PORTWATCHER_SERVICE_PORT_HTTP=9888", "PORTWATCHER_UI_SERVICE_HOST=10.0.0.2",
		"PORTWATCHER_UI_PORT_80_UDP_ADDR=10.0.0.2", "PORTWATCHER_NAME=/a/b", "PORTWATCHER_ENV_HOME=/",
		"PORTWATCHER_SCAN_INTERVALL=1s", "PORTWATCHER_CLOSE_GRACE_MS=1", "PORTWATCHER_PORTS=x", "PORTWATCHER_TOTALLY_OTHER_THING=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PORTWATCHER_CLOSE_GRACE_MS: no such setting, ignored; did you mean PORTWATCHER_CLOSE_GRACE?",
		"PORTWATCHER_PORTS: no such setting, ignored",
		"PORTWATCHER_SCAN_INTERVALL: no such setting, ignored; did you mean PORTWATCHER_SCAN_INTERVAL?",
		"PORTWATCHER_TOTALLY_OTHER_THING: no such setting, ignored",
	}
	if !slices.Equal(got.Warnings, want) {
		t.Errorf("got  %q\nwant %q", got.Warnings, want)
	}
}

// Of two variables of one setting that contradict each other, one is without
// effect, and its user must learn that.
func TestContradictingVariables(t *testing.T) {
	for _, test := range []struct {
		environ, arguments []string
		want               string
	}{
		{environ: []string{"USE_PROC=1", "PORTWATCHER_SOURCE=netlink"}, want: `USE_PROC: "1": without effect, since PORTWATCHER_SOURCE is "netlink": the longer name wins`},
		{environ: []string{"SCAN_INTERVAL=bad", "PORTWATCHER_SCAN_INTERVAL=1s"}, want: `SCAN_INTERVAL: "bad": without effect, since PORTWATCHER_SCAN_INTERVAL is "1s": the longer name wins`},
		{environ: []string{"SCAN_INTERVAL=1", "PORTWATCHER_SCAN_INTERVAL=1s"}},
		{environ: []string{"USE_PROC=0", "PORTWATCHER_SOURCE=netlink"}},
		{environ: []string{"USE_PROC=1", "PORTWATCHER_SOURCE=netlink"}, arguments: []string{"--source=proc"}},
		{environ: []string{"DOCKER_HOST=unix:///a", "PORTWATCHER_DOCKER_HOST=unix:///b"}},
	} {
		got, err := load(t, test.arguments, test.environ)
		if err != nil || strings.Join(got.Warnings, "; ") != test.want {
			t.Errorf("%v %v: warnings %q, error %v; want %q", test.environ, test.arguments, got.Warnings, err, test.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"--scan-interval", "--source", "--state"}
	for name, want := range map[string]string{"--scaninterval": "--scan-interval", "--sorce": "--source", "--nothing-like-it": ""} {
		if got := Nearest(name, words); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// The help names each flag, its variables, its bounds and its default.
func TestHelp(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.SortFlags = false
	Register(flags, Names()...)
	golden(t, "help.txt", flags.FlagUsages())
}

// noPorts is the error of what is no port.
const noPorts = `allowed are ports from 1 to 65535 and ranges such as 8000-8100, each with /tcp, /udp or neither, separated by commas or blanks`

// ports returns a set of ports that is written as it must be.
func ports(text string) model.PortSet {
	set, err := model.ParsePorts(text)
	if err != nil {
		panic(err)
	}
	return set
}
