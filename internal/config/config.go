// Package config turns the command line, the environment and a YAML file into
// checked settings. One table holds each setting with its names, default, bounds
// and help.
//
// A flag wins over a variable with the prefix PORTWATCHER_, that one over the
// short name that people know from the shell tool, that one over the file. Of
// flags and variables only the value that wins is checked; the file is checked
// as a whole, also the keys that a command does not use. The package reads no
// environment and prints nothing: both are passed in and out.
package config

import (
	"time"

	"portwatcher/internal/model"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
)

// Settings are the checked values. A setting that a command does not offer has
// its default.
type Settings struct {
	// Containers selects those to monitor.
	Containers model.Selection
	// WatchPorts are those to report.
	WatchPorts model.PortSet
	// Source is "auto", "ebpf", "netlink" or "proc".
	Source string
	// ScanInterval is 10 ms to 1 h.
	ScanInterval time.Duration
	// BurstScans is 1 to 100, BurstDelay 0 to 1 min.
	BurstScans int
	BurstDelay time.Duration
	// CloseGrace is 0 to 1 h.
	CloseGrace time.Duration
	UDPClients bool
	// BurstLimit is 0 for none, or up to 1,000,000 events a second.
	BurstLimit int
	// ReceiveBuffers is 4 MiB to 64 GiB.
	ReceiveBuffers int64
	// Format and LogFormat are "text" or "json".
	Format    string
	LogFormat string
	LogLevel  logrus.Level
	// DockerHost is empty where neither flag nor variable is given.
	DockerHost string
	// HostName is empty where the engine's is to be used.
	HostName string
	// ProcRoot and CgroupRoot are absolute paths.
	ProcRoot   string
	CgroupRoot string
	// HealthSocket is a path, "@name" for a Linux abstract socket, or empty for
	// none.
	HealthSocket string
	// ConfigFile is where the file of settings is looked for, or empty for
	// nowhere.
	ConfigFile string
	// State is the path of the journal's database, or [StateMemory].
	State string
	// Retain is how long events are kept: 0 for ever, or 1 h to 3650 days.
	Retain time.Duration
	// RetainSize is how many bytes the journal may take: 0 without limit, or
	// 1 MB to 1000 TB.
	RetainSize int64
	// Listen is HOST:PORT, or empty for nowhere.
	Listen string
	// TokenFile, TLSCert and TLSKey are paths, or empty for none.
	TokenFile, TLSCert, TLSKey string
	// AllowedHosts are in lower case.
	AllowedHosts []string
	// MetricsMaxSeries is 1 to 1,000,000.
	MetricsMaxSeries int
	// Warnings are lines to log: variables that look like settings and are not,
	// or that are without effect.
	Warnings []string

	// origins says for the name of each setting where its value came from.
	origins map[string]string
	// loaded is what the file was.
	loaded state
}

// Register adds the flags of the named settings, in the order of the table. It
// panics on a name that is not in the table, which is a programming error.
func Register(flags *pflag.FlagSet, names ...string) {
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	for _, s := range table {
		if !wanted[s.name] {
			continue
		}
		delete(wanted, s.name)
		flag := flags.VarPF(&flagValue{setting: s, text: s.standard}, s.name, "", s.help())
		if s.kind == "" {
			flag.NoOptDefVal = "true"
		}
	}
	for name := range wanted {
		panic("config: no such setting: " + name)
	}
}

// Names returns the names of all settings, in the order of the table.
func Names() []string {
	names := make([]string, len(table))
	for i, s := range table {
		names[i] = s.name
	}
	return names
}

// Restart returns the names of the settings that differ from old ones and
// cannot change without a restart, in the order of the table.
func (s *Settings) Restart(old *Settings) []string {
	var names []string
	for _, one := range table {
		if !one.reloadable && one.get(s) != one.get(old) {
			names = append(names, one.name)
		}
	}
	return names
}

// flagValue keeps a flag's text; Load checks it, so that an error has the same
// form wherever a value came from. It implements [pflag.Value].
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
	if v.setting != nil && v.setting.kind != "" {
		return v.setting.kind
	}
	return "bool"
}
