package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"

	"github.com/spf13/pflag"
)

// The names of the settings, for [Register]: the flags without their dashes.
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
	Host              = "host"
	ProcessArguments  = "process-arguments"
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
	Expect            = "expect"
	State             = "state"
	Retain            = "retain"
	RetainSize        = "retain-size"
	Listen            = "listen"
	TokenFile         = "token-file"
	TLSCert           = "tls-cert"
	TLSKey            = "tls-key"
	AllowedHosts      = "allowed-hosts"
	MetricsMaxSeries  = "metrics-max-series"
	Explain           = "explain"
	PublicURL         = "public-url"
	AlertWebhook      = "alert-webhook"
	AlertEmail        = "alert-email"
	SMTPURL           = "smtp-url"
)

// usages are the help texts of the settings.
var usages = map[string]string{
	ConfigFile:        "YAML file with settings, read if it exists; a file that is named must exist; empty means none",
	MonitorContainers: "containers to monitor: " + model.SelectionHelp + "; empty means all",
	WatchPorts:        "ports and ranges to report, such as 80,8000-8100/tcp,53/udp; empty means all",
	Source:            "source of observations: auto (the best that works), ebpf, netlink or proc",
	ScanInterval:      "time between two scans, 10ms to 1h",
	BurstScans:        "scans in a row at each scan interval, 1 to 100; without effect with eBPF",
	BurstDelay:        "time between the scans of a burst, 0 to 1m",
	CloseGrace:        "how long a port must stay closed before its close is reported, 0 to 1h",
	UDPClients:        "also report UDP sockets whose port the kernel chose",
	Host:              "report the host's own ports, too: those that belong to no container, and whether a container publishes them",
	ProcessArguments:  "add the arguments of processes to JSON, at most 256 bytes, with passwords, tokens, keys and the like redacted",
	BurstLimit: "events a second of one container above which openings and closings are counted and reported as bursts, " +
		"not one by one, 0 to 1000000; 0 means only when a queue is full",
	ReceiveBuffers: "most memory that the kernel may use for the destroy notifications of all network namespaces together, " +
		"4MiB to 64GiB, in bytes, kB to TB or KiB to TiB",
	Format:       "form of the output",
	LogFormat:    "form of the log",
	LogLevel:     "what to log: error, warn, info, debug or trace, each with those before it",
	DockerHost:   "address of the Docker Engine; empty means unix:///var/run/docker.sock",
	HostName:     "name of this host in events; empty means the name that the engine reports",
	ProcRoot:     "where the host's /proc is mounted",
	CgroupRoot:   "where the host's cgroup file system is mounted",
	HealthSocket: "socket for health checks, a path or @name for an abstract one; empty switches it off",
	Expect: "YAML file of the ports that are expected, whose differences from what is open are reported as drift; read if it exists, " +
		"and again when it changes; a file that is named must exist; empty means none",
	State:            "the journal's database, or memory to keep none on disk; a folder means portwatcher.db in it",
	Retain:           "how long events are kept, 1h to 3650d, with the units of durations, d and w; 0 means for ever",
	RetainSize:       "how large the journal may grow, 1MB to 1000TB, in bytes, kB to TB or KiB to TiB; 0 means unlimited",
	Listen:           "where the page, the API and the metrics are served: HOST:PORT; empty serves none of them",
	TokenFile:        "file with the token that clients must send; empty requires none",
	TLSCert:          "file with the certificate to serve HTTPS, in PEM; needs tls-key; read again when it changes",
	TLSKey:           "file with the certificate's private key, in PEM",
	AllowedHosts:     "host names that requests without a token may use, besides addresses, names without a dot and this host's name",
	Explain:          "whether the API and the page may explain why a port cannot be reached, for which portwatcher connects to it: on or off",
	PublicURL:        "where people reach the page, http://HOST or https://HOST, for the links in alerts; empty leaves them out",
	AlertWebhook:     "where alerts are posted, http://… or https://…; without rules in the file, by the standard rules; empty for none",
	AlertEmail:       "whom alerts are mailed, one or several addresses; needs smtp-url; empty for none",
	SMTPURL:          "mail server, smtp://USER:PASSWORD@HOST:587 (STARTTLS) or smtps://USER:PASSWORD@HOST:465; empty for none",
	MetricsMaxSeries: "most series of a metric that has one for each port, 1 to 1000000",
}

// setting is one field of [Settings] with what its tags state.
type setting struct {
	name, key      string // of the flag and in the file
	field          int    // index in Settings
	kind, standard string
	low, high      string
	zero           string
	allowed        string
	short, unit    string
	list           bool

	reloadable, secret, flagOnly, emptiable, shared bool
}

// kinds are the kinds of values by the type of the field. A switch has none.
var kinds = map[reflect.Type]string{
	reflect.TypeFor[string]():          "path",
	reflect.TypeFor[int]():             "count",
	reflect.TypeFor[int64]():           "size",
	reflect.TypeFor[time.Duration]():   "duration",
	reflect.TypeFor[[]string]():        "list",
	reflect.TypeFor[model.Selection](): "list",
	reflect.TypeFor[model.PortSet]():   "list",
}

// table holds every setting, in the order of the help.
var table = settings()

func settings() []*setting {
	var table []*setting
	fields := reflect.TypeFor[Settings]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		key, found := tag.Lookup("koanf")
		if !found {
			continue
		}
		kind, is := cmp.Or(tag.Get("kind"), kinds[fields.Field(i).Type]), strings.Fields(tag.Get("is"))
		table = append(table, &setting{
			name: strings.ReplaceAll(key, "_", "-"), key: key, field: i, kind: kind, list: kind == "list", standard: tag.Get("default"),
			low: tag.Get("min"), high: tag.Get("max"), zero: tag.Get("zero"), allowed: tag.Get("allowed"),
			short: tag.Get("short"), unit: tag.Get("unit"),
			reloadable: slices.Contains(is, "reloadable"), secret: slices.Contains(is, "secret"),
			flagOnly: slices.Contains(is, "flag"), emptiable: slices.Contains(is, "emptiable"), shared: slices.Contains(is, "shared"),
		})
	}
	return table
}

// lookup returns the setting of a name that is in the table; another one is a
// programming error.
func lookup(name string) *setting {
	for _, s := range table {
		if s.name == name {
			return s
		}
	}
	panic("config: no such setting: " + name)
}

// variable returns the name of the environment variable.
func (s *setting) variable() string { return prefix + strings.ToUpper(s.key) }

// variables returns the names of the environment variables, for the help.
func (s *setting) variables() string {
	text := s.variable()
	if s.short != "" {
		text += ", " + s.short
	}
	if s.unit != "" {
		text += " in " + s.unit
	}
	return text
}

// shown returns a value as it may be shown: not if it is a secret.
func (s *setting) shown(value string) string {
	if s.secret && value != "" {
		return "(secret)"
	}
	return value
}

// Names returns the names of all settings, in the order of the help.
func Names() []string {
	names := make([]string, len(table))
	for i, s := range table {
		names[i] = s.name
	}
	return names
}

// Register adds the flags of the named settings, in the order of the help. It panics
// if there is no setting of a name, which is a programming error.
func Register(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		lookup(name)
	}
	for _, s := range table {
		if !slices.Contains(names, s.name) {
			continue
		}
		help := usages[s.name] + " [" + s.variables()
		if s.reloadable {
			help += "; reloadable"
		}
		flag := flags.VarPF(&flagValue{setting: s, text: s.standard}, s.name, "", help+"]")
		if s.kind == "" {
			flag.NoOptDefVal = "true"
		}
	}
}

// flagValue keeps a flag's text. Load checks it, so that an error has the same form
// for every source of a value. It implements [pflag.Value].
type flagValue struct {
	setting *setting
	text    string
	given   bool
}

func (v *flagValue) Set(text string) error {
	if v.setting.list && v.given {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}

func (v *flagValue) String() string { return v.text }

func (v *flagValue) Type() string {
	if v.setting != nil && v.setting.kind != "" { // pflag makes zero values
		return v.setting.kind
	}
	return "bool"
}
