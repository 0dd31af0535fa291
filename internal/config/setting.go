package config

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// Prefix begins the name of each setting's environment variable.
const Prefix = "PORTWATCHER_"

// The names of the settings, for [Register]: the flag without its dashes.
const (
	MonitorContainers = "monitor-containers"
	WatchPorts        = "watch-ports"
	Source            = "source"
	ScanInterval      = "scan-interval"
	BurstScans        = "burst-scans"
	BurstDelay        = "burst-delay"
	CloseGrace        = "close-grace"
	UDPClients        = "udp-clients"
	Format            = "format"
	LogFormat         = "log-format"
	LogLevel          = "log-level"
	DockerHost        = "docker-host"
	HostName          = "host-name"
	ProcRoot          = "proc-root"
	CgroupRoot        = "cgroup-root"
	HealthSocket      = "health-socket"
)

// setting is one row of the table that flags, variables and help come from.
type setting struct {
	name     string
	kind     string // of the value, for the help; "" for a switch
	standard string // the default, as a user would write it
	usage    string
	// set checks a value and takes it over. Its error says what is allowed.
	set func(*Settings, string) error
	// short is a variable that people know from the shell tool, and unit how
	// it differs.
	short *shortForm
	// list says that the flag may be repeated.
	list bool
	// emptyCounts says that an empty variable is a value and not "unset".
	emptyCounts bool
}

// shortForm is a variable without the prefix.
type shortForm struct {
	name string
	unit string // for the help; empty: written as in the long form
	set  func(*Settings, string) error
}

// variable returns the name of the environment variable.
func (s *setting) variable() string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// help returns the usage with the names of the variables.
func (s *setting) help() string {
	text := s.usage + " [" + s.variable()
	if s.short != nil {
		text += ", " + s.short.name
		if s.short.unit != "" {
			text += " in " + s.short.unit
		}
	}
	return text + "]"
}

// Bounds of the settings that are times.
const (
	minScanInterval = 10 * time.Millisecond
	maxScanInterval = time.Hour
	maxBurstScans   = 100
	maxBurstDelay   = time.Minute
	maxCloseGrace   = time.Hour
)

// table holds every setting, in the order of the help.
var table = []*setting{
	{
		name: MonitorContainers, kind: "list", list: true,
		usage: "containers to monitor: names, * patterns, project/service, label:key=value; ! excludes; empty means all",
		set:   (*Settings).setContainers,
		short: &shortForm{name: "MONITOR_CONTAINERS", set: (*Settings).setContainers},
	},
	{
		name: WatchPorts, kind: "list", list: true,
		usage: "ports and ranges to report, such as 80,8000-8100; empty means all",
		set:   (*Settings).setWatchPorts,
		short: &shortForm{name: "WATCH_PORTS", set: (*Settings).setWatchPorts},
	},
	{
		name: Source, kind: "name", standard: "auto",
		usage: "where to look: auto (the best that works), ebpf, netlink or proc",
		set:   choice(func(s *Settings) *string { return &s.Source }, "auto", "ebpf", "netlink", "proc"),
		short: &shortForm{name: "USE_PROC", unit: "0 or 1 (proc)", set: (*Settings).setUseProc},
	},
	{
		name: ScanInterval, kind: "duration", standard: "500ms",
		usage: "time between two scans, 10ms to 1h",
		set:   durationSetter(minScanInterval, maxScanInterval, scanInterval),
		short: &shortForm{
			name: "SCAN_INTERVAL", unit: "seconds",
			set: numberSetter(time.Second, "seconds", minScanInterval, maxScanInterval, scanInterval),
		},
	},
	{
		name: BurstScans, kind: "count", standard: "1",
		usage: "scans in a row at each scan interval, 1 to 100; without effect where eBPF tells",
		set:   (*Settings).setBurstScans,
		short: &shortForm{name: "BURST_SCANS", set: (*Settings).setBurstScans},
	},
	{
		name: BurstDelay, kind: "duration", standard: "10ms",
		usage: "time between the scans of a burst, 0 to 1m",
		set:   durationSetter(0, maxBurstDelay, burstDelay),
		short: &shortForm{
			name: "BURST_DELAY", unit: "seconds",
			set: numberSetter(time.Second, "seconds", 0, maxBurstDelay, burstDelay),
		},
	},
	{
		name: CloseGrace, kind: "duration", standard: "0",
		usage: "how long a port must stay closed before its close is reported, 0 to 1h",
		set:   durationSetter(0, maxCloseGrace, closeGrace),
		short: &shortForm{
			name: "CLOSE_GRACE_MS", unit: "milliseconds",
			set: numberSetter(time.Millisecond, "milliseconds", 0, maxCloseGrace, closeGrace),
		},
	},
	{
		name: UDPClients, standard: "false",
		usage: "report UDP sockets whose port the kernel chose, too",
		set:   (*Settings).setUDPClients,
	},
	{
		name: Format, kind: "text|json", standard: "text",
		usage: "form of the output",
		set:   choice(func(s *Settings) *string { return &s.Format }, "text", "json"),
	},
	{
		name: LogFormat, kind: "text|json", standard: "text",
		usage: "form of the log",
		set:   choice(func(s *Settings) *string { return &s.LogFormat }, "text", "json"),
	},
	{
		name: LogLevel, kind: "level", standard: "info",
		usage: "what to log: error, warn, info, debug or trace, each with those before it",
		set:   (*Settings).setLogLevel,
	},
	{
		name: DockerHost, kind: "address",
		usage: "address of the Docker Engine; empty means unix:///var/run/docker.sock",
		set:   (*Settings).setDockerHost,
		short: &shortForm{name: "DOCKER_HOST", set: (*Settings).setDockerHost},
	},
	{
		name: HostName, kind: "name",
		usage: "name of this host in events; empty means the name that the engine tells",
		set:   (*Settings).setHostName,
	},
	{
		name: ProcRoot, kind: "folder", standard: "/proc",
		usage: "where the host's /proc is mounted",
		set:   folder(func(s *Settings) *string { return &s.ProcRoot }),
	},
	{
		name: CgroupRoot, kind: "folder", standard: "/sys/fs/cgroup",
		usage: "where the host's cgroup file system is mounted",
		set:   folder(func(s *Settings) *string { return &s.CgroupRoot }),
	},
	{
		name: HealthSocket, kind: "socket", standard: "@portwatcher", emptyCounts: true,
		usage: "socket for health checks, a path or @name for an abstract one; empty switches it off",
		set:   (*Settings).setHealthSocket,
	},
}

func scanInterval(s *Settings) *time.Duration { return &s.ScanInterval }
func burstDelay(s *Settings) *time.Duration   { return &s.BurstDelay }
func closeGrace(s *Settings) *time.Duration   { return &s.CloseGrace }

// durationSetter takes Go durations within bounds.
func durationSetter(low, high time.Duration, field func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		parsed, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("allowed are %s to %s, with a unit as in 500ms or 2s", short(low), short(high))
		}
		if parsed < low || parsed > high {
			return fmt.Errorf("allowed are %s to %s", short(low), short(high))
		}
		*field(s) = parsed
		return nil
	}
}

// numberSetter takes decimal numbers of a unit within bounds.
func numberSetter(unit time.Duration, name string, low, high time.Duration, field func(*Settings) *time.Duration) func(*Settings, string) error {
	lowest, highest := float64(low)/float64(unit), float64(high)/float64(unit)
	return func(s *Settings, value string) error {
		number, err := strconv.ParseFloat(value, 64)
		// A comparison with NaN is false.
		if err != nil || !(number >= lowest && number <= highest) {
			return fmt.Errorf("allowed are %s to %s (%s)",
				strconv.FormatFloat(lowest, 'f', -1, 64), strconv.FormatFloat(highest, 'f', -1, 64), name)
		}
		*field(s) = time.Duration(math.Round(number * float64(unit)))
		return nil
	}
}

// short writes a duration without zero parts: 1h, not 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if d == 0 {
		return "0"
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// choice takes one of a few words.
func choice(field func(*Settings) *string, words ...string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if !slices.Contains(words, value) {
			return fmt.Errorf("allowed are %s", strings.Join(words, ", "))
		}
		*field(s) = value
		return nil
	}
}

// folder takes an absolute path.
func folder(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("allowed is an absolute path")
		}
		*field(s) = path.Clean(value)
		return nil
	}
}

func (s *Settings) setContainers(value string) error {
	selection, err := ParseSelection(value)
	if err != nil {
		return err
	}
	s.Containers = selection
	return nil
}

func (s *Settings) setWatchPorts(value string) error {
	ports, err := ParsePorts(value)
	if err != nil {
		return err
	}
	s.WatchPorts = ports
	return nil
}

func (s *Settings) setUseProc(value string) error {
	proc, err := parseSwitch(value)
	if err != nil {
		return err
	}
	if proc {
		s.Source = "proc"
	}
	return nil
}

func (s *Settings) setBurstScans(value string) error {
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 || count > maxBurstScans {
		return fmt.Errorf("allowed are 1 to %d", maxBurstScans)
	}
	s.BurstScans = count
	return nil
}

func (s *Settings) setUDPClients(value string) error {
	enabled, err := parseSwitch(value)
	if err != nil {
		return err
	}
	s.UDPClients = enabled
	return nil
}

// parseSwitch takes the words for on and off.
func parseSwitch(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("allowed are true, 1, yes, false, 0, no")
}

func (s *Settings) setLogLevel(value string) error {
	levels := []logrus.Level{logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel}
	level, err := logrus.ParseLevel(value)
	if err != nil || !slices.Contains(levels, level) {
		return fmt.Errorf("allowed are error, warn, info, debug, trace")
	}
	s.LogLevel = level
	return nil
}

// setDockerHost checks the form alone; the engine package knows the rest.
func (s *Settings) setDockerHost(value string) error {
	scheme, address, _ := strings.Cut(value, "://")
	if value != "" && (address == "" || !slices.Contains([]string{"unix", "tcp", "http", "https"}, scheme)) {
		return fmt.Errorf("allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT")
	}
	s.DockerHost = value
	return nil
}

func (s *Settings) setHostName(value string) error {
	// It stands in each line of output.
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(value) > 253 {
		return fmt.Errorf("allowed are up to 253 bytes without blanks and control characters")
	}
	s.HostName = value
	return nil
}

// maxSocketName is the space for a socket's name in struct sockaddr_un, less
// one byte: the zero that ends a path, or begins an abstract name.
// Source: unix(7).
const maxSocketName = 107

func (s *Settings) setHealthSocket(value string) error {
	name, abstract := strings.CutPrefix(value, "@")
	valid := value == "" || abstract && name != "" || path.IsAbs(value)
	if !valid || len(name) > maxSocketName || strings.ContainsRune(value, 0) {
		return fmt.Errorf("allowed are an absolute path and @name, each up to %d bytes, and empty for none", maxSocketName)
	}
	s.HealthSocket = value
	return nil
}
