// Package config turns the command line and the environment into checked
// settings. One table holds each setting with its names, default, bounds and
// help.
//
// A flag wins over a variable with the prefix PORTWATCHER_, that one over the
// short name that people know from the shell tool. Only the value that wins is
// checked. The package reads no environment and writes nothing: both are
// passed in and out.
package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
)

// Settings are the checked values. A setting that a command does not offer has
// its default.
type Settings struct {
	// Containers selects those to monitor.
	Containers Selection
	// WatchPorts are those to report.
	WatchPorts Ports
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
	// Warnings are lines to log: variables that look like settings and are not.
	Warnings []string
}

// Error is an invalid value: an exit status of 2. It is one line.
type Error struct {
	// Setting is the name in the form that the user used, as in
	// "--scan-interval" or "SCAN_INTERVAL".
	Setting string
	Value   string
	// Err says what is wrong, or what is allowed.
	Err error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %q: %v", e.Setting, e.Value, e.Err) }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

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

// Load returns the settings of a parsed command line and an environment in the
// form of [os.Environ]. Only settings that were registered on flags are looked
// at. An empty variable is one that is not set, except for the health socket.
// The error is an [*Error].
func Load(flags *pflag.FlagSet, environ []string) (*Settings, error) {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := variables[name]; !twice {
			variables[name] = value
		}
	}
	settings := &Settings{Warnings: unknownVariables(variables)}
	for _, s := range table {
		if err := s.set(settings, s.standard); err != nil {
			return nil, &Error{Setting: "--" + s.name, Value: s.standard, Err: err}
		}
		flag := flags.Lookup(s.name)
		if flag == nil {
			continue
		}
		if err := s.load(settings, flag, variables); err != nil {
			return nil, err
		}
	}
	return settings, nil
}

// load takes the value of the form that wins, if there is one.
func (s *setting) load(settings *Settings, flag *pflag.Flag, variables map[string]string) error {
	name, value, set := "--"+s.name, flag.Value.String(), s.set
	if !flag.Changed {
		var found bool
		name = s.variable()
		value, found = variables[name]
		if found = found && (value != "" || s.emptyCounts); !found && s.short != nil {
			name, set = s.short.name, s.short.set
			value = variables[name]
			found = value != ""
		}
		if !found {
			return nil
		}
	}
	if err := set(settings, value); err != nil {
		return &Error{Setting: name, Value: value, Err: err}
	}
	return nil
}
