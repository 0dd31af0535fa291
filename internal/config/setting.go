package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portwatcher/internal/model"
)

// Prefix begins the name of each setting's environment variable.
const Prefix = "PORTWATCHER_"

// The names of the settings, for [Register]: the flag without its dashes.
const (
	ConfigFile        = "config"
	MonitorContainers = "monitor-containers"
	WatchPorts        = "watch-ports"
	Source            = "source"
	ScanInterval      = "scan-interval"
	BurstScans        = "burst-scans"
	BurstDelay        = "burst-delay"
	CloseGrace        = "close-grace"
	UDPClients        = "udp-clients"
	BurstLimit        = "burst-limit"
	ReceiveBuffers    = "receive-buffers"
	Format            = "format"
	LogFormat         = "log-format"
	LogLevel          = "log-level"
	DockerHost        = "docker-host"
	HostName          = "host-name"
	ProcRoot          = "proc-root"
	CgroupRoot        = "cgroup-root"
	HealthSocket      = "health-socket"
	State             = "state"
	Retain            = "retain"
	RetainSize        = "retain-size"
	Listen            = "listen"
	TokenFile         = "token-file"
	TLSCert           = "tls-cert"
	TLSKey            = "tls-key"
	AllowedHosts      = "allowed-hosts"
	MetricsMaxSeries  = "metrics-max-series"
)

// setting is one row of the table that flags, variables and help come from.
type setting struct {
	name     string
	kind     string // of the value, for the help; "" for a switch
	standard string // the default, as a user would write it
	usage    string
	// set checks a value and takes it over. Its error says what is allowed.
	set func(*Settings, string) error
	// get returns the value in a form that set takes.
	get func(*Settings) string
	// short is a variable that people know from the shell tool, and unit how
	// it differs.
	short *shortForm
	// list says that the flag may be repeated.
	list bool
	// emptyCounts says that an empty variable is a value and not "unset".
	emptyCounts bool
	// reloadable says that a change takes effect without a restart.
	reloadable bool
	// secret says that the value is not shown.
	secret bool
	// outside says that the setting cannot be made in the file.
	outside bool
}

// shortForm is a variable without the prefix.
type shortForm struct {
	name string
	unit string // for the help; empty: written as in the long form
	// shared says that other programs read the variable too.
	shared bool
	// set may return errNoValue.
	set func(*Settings, string) error
}

// errNoValue says that a variable's value leaves the setting as it is.
var errNoValue = errors.New("no value")

// variable returns the name of the environment variable.
func (s *setting) variable() string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// key returns the name in the file.
func (s *setting) key() string { return strings.ReplaceAll(s.name, "-", "_") }

// help returns the usage with the names of the variables.
func (s *setting) help() string {
	text := s.usage + " [" + s.variables()
	if s.reloadable {
		text += "; reloadable"
	}
	return text + "]"
}

// variables returns the names of the environment variables.
func (s *setting) variables() string {
	text := s.variable()
	if s.short != nil {
		text += ", " + s.short.name
		if s.short.unit != "" {
			text += " in " + s.short.unit
		}
	}
	return text
}

// apply checks a value and takes it over by one of its setters. What could not
// be shown in one line, or not be written in the file, is refused.
func (s *setting) apply(settings *Settings, value string, set func(*Settings, string) error) error {
	if err := set(settings, value); err != nil {
		return err
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("allowed is text in UTF-8")
	}
	if !s.list && strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("allowed is text without control characters")
	}
	return nil
}

// table holds every setting, in the order of the help.
var table = []*setting{
	{
		name: ConfigFile, outside: true, kind: "path", standard: DefaultFile, emptyCounts: true,
		usage: "YAML file with settings, read where it exists; one that is named must exist; empty means none",
		set:   (*Settings).setConfigFile,
		get:   func(s *Settings) string { return s.ConfigFile },
		short: &shortForm{name: "CONFIG_FILE", set: (*Settings).setConfigFile},
	},
	{
		name: MonitorContainers, reloadable: true, kind: "list", list: true,
		usage: "containers to monitor: " + model.SelectionHelp + "; empty means all",
		set:   (*Settings).setContainers,
		get:   func(s *Settings) string { return s.Containers.String() },
		short: &shortForm{name: "MONITOR_CONTAINERS", set: (*Settings).setContainers},
	},
	{
		name: WatchPorts, reloadable: true, kind: "list", list: true,
		usage: "ports and ranges to report, such as 80,8000-8100/tcp,53/udp; empty means all",
		set:   (*Settings).setWatchPorts,
		get:   func(s *Settings) string { return s.WatchPorts.String() },
		short: &shortForm{name: "WATCH_PORTS", set: (*Settings).setWatchPorts},
	},
	{
		name: Source, kind: "name", standard: "auto",
		usage: "where to look: auto (the best that works), ebpf, netlink or proc",
		set:   choice(func(s *Settings) *string { return &s.Source }, "auto", "ebpf", "netlink", "proc"),
		get:   func(s *Settings) string { return s.Source },
		short: &shortForm{name: "USE_PROC", unit: "0 or 1 (proc)", set: (*Settings).setUseProc},
	},
	{
		name: ScanInterval, reloadable: true, kind: "duration", standard: "500ms",
		usage: "time between two scans, 10ms to 1h",
		set:   durationSetter(minScanInterval, maxScanInterval, scanInterval),
		get:   func(s *Settings) string { return short(s.ScanInterval) },
		short: &shortForm{
			name: "SCAN_INTERVAL", unit: "seconds",
			set: numberSetter(time.Second, "seconds", minScanInterval, maxScanInterval, scanInterval),
		},
	},
	{
		name: BurstScans, reloadable: true, kind: "count", standard: "1",
		usage: "scans in a row at each scan interval, 1 to 100; without effect where eBPF tells",
		set:   (*Settings).setBurstScans,
		get:   func(s *Settings) string { return strconv.Itoa(s.BurstScans) },
		short: &shortForm{name: "BURST_SCANS", set: (*Settings).setBurstScans},
	},
	{
		name: BurstDelay, reloadable: true, kind: "duration", standard: "10ms",
		usage: "time between the scans of a burst, 0 to 1m",
		set:   durationSetter(0, maxBurstDelay, burstDelay),
		get:   func(s *Settings) string { return short(s.BurstDelay) },
		short: &shortForm{
			name: "BURST_DELAY", unit: "seconds",
			set: numberSetter(time.Second, "seconds", 0, maxBurstDelay, burstDelay),
		},
	},
	{
		name: CloseGrace, reloadable: true, kind: "duration", standard: "0",
		usage: "how long a port must stay closed before its close is reported, 0 to 1h",
		set:   durationSetter(0, maxCloseGrace, closeGrace),
		get:   func(s *Settings) string { return short(s.CloseGrace) },
		short: &shortForm{
			name: "CLOSE_GRACE_MS", unit: "milliseconds",
			set: numberSetter(time.Millisecond, "milliseconds", 0, maxCloseGrace, closeGrace),
		},
	},
	{
		name: UDPClients, reloadable: true, standard: "false",
		usage: "report UDP sockets whose port the kernel chose, too",
		set:   (*Settings).setUDPClients,
		get:   func(s *Settings) string { return strconv.FormatBool(s.UDPClients) },
	},
	{
		name: BurstLimit, reloadable: true, kind: "count", standard: "0",
		usage: "events a second of one container above which openings and closings are counted, and reported as bursts, instead of listed, 0 to 1000000; 0 means only where a queue has no room",
		set:   (*Settings).setBurstLimit,
		get:   func(s *Settings) string { return strconv.Itoa(s.BurstLimit) },
	},
	{
		name: ReceiveBuffers, reloadable: true, kind: "size", standard: "256MiB",
		usage: "most memory that the kernel may use for the destroy notifications of all network namespaces together, 4MiB to 64GiB, in bytes, kB to TB or KiB to TiB",
		set:   (*Settings).setReceiveBuffers,
		get:   func(s *Settings) string { return size(s.ReceiveBuffers) },
	},
	{
		name: Format, kind: "text|json", standard: "text",
		usage: "form of the output",
		set:   choice(func(s *Settings) *string { return &s.Format }, "text", "json"),
		get:   func(s *Settings) string { return s.Format },
	},
	{
		name: LogFormat, reloadable: true, kind: "text|json", standard: "text",
		usage: "form of the log",
		set:   choice(func(s *Settings) *string { return &s.LogFormat }, "text", "json"),
		get:   func(s *Settings) string { return s.LogFormat },
	},
	{
		name: LogLevel, reloadable: true, kind: "level", standard: "info",
		usage: "what to log: error, warn, info, debug or trace, each with those before it",
		set:   (*Settings).setLogLevel,
		get:   (*Settings).logLevel,
	},
	{
		name: DockerHost, kind: "address",
		usage: "address of the Docker Engine; empty means unix:///var/run/docker.sock",
		set:   (*Settings).setDockerHost,
		get:   func(s *Settings) string { return s.DockerHost },
		short: &shortForm{name: "DOCKER_HOST", shared: true, set: (*Settings).setDockerHost},
	},
	{
		name: HostName, kind: "name",
		usage: "name of this host in events; empty means the name that the engine tells",
		set:   (*Settings).setHostName,
		get:   func(s *Settings) string { return s.HostName },
	},
	{
		name: ProcRoot, kind: "folder", standard: "/proc",
		usage: "where the host's /proc is mounted",
		set:   folder(func(s *Settings) *string { return &s.ProcRoot }),
		get:   func(s *Settings) string { return s.ProcRoot },
	},
	{
		name: CgroupRoot, kind: "folder", standard: "/sys/fs/cgroup",
		usage: "where the host's cgroup file system is mounted",
		set:   folder(func(s *Settings) *string { return &s.CgroupRoot }),
		get:   func(s *Settings) string { return s.CgroupRoot },
	},
	{
		name: HealthSocket, kind: "socket", standard: "@portwatcher", emptyCounts: true,
		usage: "socket for health checks, a path or @name for an abstract one; empty switches it off",
		set:   (*Settings).setHealthSocket,
		get:   func(s *Settings) string { return s.HealthSocket },
	},
	{
		name: State, kind: "path", standard: "/var/lib/portwatcher/portwatcher.db",
		usage: "the journal's database, or memory to keep none on disk; a folder means portwatcher.db in it",
		set:   (*Settings).setState,
		get:   func(s *Settings) string { return s.State },
		short: &shortForm{name: "SNAPSHOT_PATH", unit: "the same form, NAME.json meaning NAME.db", set: (*Settings).setSnapshotPath},
	},
	{
		name: Retain, reloadable: true, kind: "age", standard: "30d",
		usage: "how long events are kept, 1h to 3650d, with the units of durations, d and w; 0 means for ever",
		set:   (*Settings).setRetain,
		get:   func(s *Settings) string { return age(s.Retain) },
	},
	{
		name: RetainSize, reloadable: true, kind: "size", standard: "1GB",
		usage: "how large the journal may grow, 1MB to 1000TB, in bytes, kB to TB or KiB to TiB; 0 means unlimited",
		set:   (*Settings).setRetainSize,
		get:   func(s *Settings) string { return size(s.RetainSize) },
	},
	{
		name: Listen, kind: "address", standard: "127.0.0.1:9888", emptyCounts: true,
		usage: "where the page, the API and the metrics are served: HOST:PORT; empty for nowhere",
		set:   (*Settings).setListen,
		get:   func(s *Settings) string { return s.Listen },
	},
	{
		name: TokenFile, kind: "path",
		usage: "file with the token that clients must show; empty asks for none",
		set:   pathOrNone(func(s *Settings) *string { return &s.TokenFile }),
		get:   func(s *Settings) string { return s.TokenFile },
	},
	{
		name: TLSCert, kind: "path",
		usage: "file with the certificate to serve HTTPS, in PEM; needs tls-key; read again when it changes",
		set:   pathOrNone(func(s *Settings) *string { return &s.TLSCert }),
		get:   func(s *Settings) string { return s.TLSCert },
	},
	{
		name: TLSKey, kind: "path",
		usage: "file with the certificate's private key, in PEM",
		set:   pathOrNone(func(s *Settings) *string { return &s.TLSKey }),
		get:   func(s *Settings) string { return s.TLSKey },
	},
	{
		name: AllowedHosts, kind: "list", list: true,
		usage: "host names by which clients may ask without a token, beside addresses, names without a dot and this host's own",
		set:   (*Settings).setAllowedHosts,
		get:   func(s *Settings) string { return strings.Join(s.AllowedHosts, ",") },
	},
	{
		name: MetricsMaxSeries, kind: "count", standard: "5000",
		usage: "most series of a metric that has one for each port, 1 to 1000000",
		set:   (*Settings).setMetricsMaxSeries,
		get:   func(s *Settings) string { return strconv.Itoa(s.MetricsMaxSeries) },
	},
}
