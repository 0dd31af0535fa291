// Package config turns the command line, the environment and a YAML file into
// checked settings. The tags of [Settings] hold each setting's names, default,
// bounds and properties; the flags, the help, the file and the checks come from them.
//
// A flag overrides the variable with the prefix PORTWATCHER_, which overrides the
// short variable of the shell tool, which overrides the file. Only the value with the
// highest precedence is checked, but the file is checked as a whole, including the
// keys that a command does not use. The package reads no environment and prints
// nothing: the caller passes both.
package config

import (
	"time"

	"portwatcher/internal/model"

	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v3"
)

const (
	// prefix begins the name of each setting's environment variable.
	prefix = "PORTWATCHER_"
	// StateMemory is the value of Settings.State that keeps the journal in memory.
	StateMemory = "memory"
)

// Settings are the checked values. A setting that a command does not offer has its
// default. The tags are:
//
//   - koanf: the key in the file; the flag and the variable are derived from it
//   - kind: the kind of value, for the help, if the type of the field does not determine it
//   - default, min, max: in the form of the flag; zero: what 0 means, outside the bounds
//   - allowed: the words that are allowed
//   - short, unit: the short variable, and how its value differs
//   - is: "reloadable" without a restart; "secret", never shown; "flag", which the file
//     cannot set; "emptiable" by an empty variable; "shared" with other programs, which
//     may set the short variable to another value
type Settings struct {
	// ConfigFile is the path of the file of settings, or empty for none.
	ConfigFile string `koanf:"config" default:"/etc/portwatcher/config.yaml" short:"CONFIG_FILE" is:"flag emptiable"`
	// Containers selects the containers to monitor.
	Containers model.Selection `koanf:"monitor_containers" short:"MONITOR_CONTAINERS" is:"reloadable"`
	// WatchPorts are the ports to report; empty means all.
	WatchPorts model.PortSet `koanf:"watch_ports" short:"WATCH_PORTS" is:"reloadable"`
	// Source is the source of observations.
	Source string `koanf:"source" kind:"name" default:"auto" allowed:"auto, ebpf, netlink, proc" short:"USE_PROC" unit:"0 or 1 (proc)"`
	// ScanInterval and BurstDelay are the times between scans, and between those of a burst.
	ScanInterval time.Duration `koanf:"scan_interval" default:"500ms" min:"10ms" max:"1h" short:"SCAN_INTERVAL" unit:"seconds" is:"reloadable"`
	BurstScans   int           `koanf:"burst_scans" default:"1" min:"1" max:"100" short:"BURST_SCANS" is:"reloadable"`
	BurstDelay   time.Duration `koanf:"burst_delay" default:"10ms" min:"0" max:"1m" short:"BURST_DELAY" unit:"seconds" is:"reloadable"`
	CloseGrace   time.Duration `koanf:"close_grace" default:"0" min:"0" max:"1h" short:"CLOSE_GRACE_MS" unit:"milliseconds" is:"reloadable"`
	UDPClients   bool          `koanf:"udp_clients" default:"false" is:"reloadable"`
	// Host adds the host's own ports: those of no container.
	Host bool `koanf:"host" default:"false" short:"MONITOR_HOST"`
	// ProcessArguments adds the arguments of processes.
	ProcessArguments bool `koanf:"process_arguments" default:"false"`
	// BurstLimit is in events a second, or 0 for no limit.
	BurstLimit int `koanf:"burst_limit" default:"0" min:"1" max:"1000000" zero:"no limit" is:"reloadable"`
	// ReceiveBuffers is in bytes.
	ReceiveBuffers int64        `koanf:"receive_buffers" default:"256MiB" min:"4MiB" max:"64GiB" is:"reloadable"`
	Format         string       `koanf:"format" kind:"text|json" default:"text" allowed:"text, json"`
	LogFormat      string       `koanf:"log_format" kind:"text|json" default:"text" allowed:"text, json" is:"reloadable"`
	LogLevel       logrus.Level `koanf:"log_level" kind:"level" default:"info" allowed:"error, warn, info, debug, trace" is:"reloadable"`
	// DockerHost is empty if it is not set.
	DockerHost string `koanf:"docker_host" kind:"address" short:"DOCKER_HOST" is:"shared"`
	// HostName is empty for the engine's name of the host.
	HostName string `koanf:"host_name" kind:"name"`
	// ProcRoot and CgroupRoot are absolute paths.
	ProcRoot   string `koanf:"proc_root" kind:"folder" default:"/proc"`
	CgroupRoot string `koanf:"cgroup_root" kind:"folder" default:"/sys/fs/cgroup"`
	// HealthSocket is a path, "@name" for a Linux abstract socket, or empty for none.
	HealthSocket string `koanf:"health_socket" kind:"socket" default:"@portwatcher" is:"emptiable"`
	// Expect is the path of the file of expectations, or empty for none. The default is read if
	// it exists; see [Settings.Given].
	Expect string `koanf:"expect" default:"/etc/portwatcher/expected.yaml" is:"emptiable"`
	// State is the path of the journal's database, or [StateMemory].
	State string `koanf:"state" default:"/var/lib/portwatcher/portwatcher.db" short:"SNAPSHOT_PATH" unit:"the same form, NAME.json meaning NAME.db"`
	// Retain is how long events are kept, or 0 for ever.
	Retain time.Duration `koanf:"retain" kind:"age" default:"30d" min:"1h" max:"3650d" zero:"for ever" is:"reloadable"`
	// RetainSize is the journal's maximum size in bytes, or 0 for none.
	RetainSize int64 `koanf:"retain_size" default:"1GB" min:"1MB" max:"1000TB" zero:"unlimited" is:"reloadable"`
	// Listen is HOST:PORT, or empty to serve nothing.
	Listen string `koanf:"listen" kind:"address" default:"127.0.0.1:9888" is:"emptiable"`
	// TokenFile, TLSCert and TLSKey are paths, or empty for none.
	TokenFile string `koanf:"token_file"`
	TLSCert   string `koanf:"tls_cert"`
	TLSKey    string `koanf:"tls_key"`
	// AllowedHosts are in lower case.
	AllowedHosts []string `koanf:"allowed_hosts"`
	// Explain is whether the API and the page explain ports, for which they connect to them.
	Explain          string `koanf:"explain" kind:"on|off" default:"on" allowed:"on, off"`
	MetricsMaxSeries int    `koanf:"metrics_max_series" default:"5000" min:"1" max:"1000000"`

	// PublicURL is where people reach the page, or empty if it is not known.
	PublicURL string `koanf:"public_url" kind:"url" is:"reloadable"`
	// AlertWebhook, AlertEmail and SMTPURL are receivers of alerts beside those of Alerts; empty
	// for none.
	AlertWebhook string `koanf:"alert_webhook" kind:"url" short:"ALERT_WEBHOOK" is:"reloadable secret"`
	AlertEmail   string `koanf:"alert_email" kind:"addresses" short:"ALERT_EMAIL" is:"reloadable"`
	SMTPURL      string `koanf:"smtp_url" kind:"url" short:"SMTP_URL" is:"reloadable secret shared"`

	// Alerts is the section of the file with the rules and receivers of alerts, which package
	// alert checks; reloadable.
	Alerts Section
	// Warnings are lines to log: variables that are no settings or that have no effect.
	Warnings []string
	// origins holds where the value of each setting came from, by the setting's name.
	origins map[string]string
}

// Section is a part of the file that another package checks.
type Section struct {
	// File is the path of the file, and Line where the section begins. Node is its value; nil
	// where the file has none.
	File string
	Line int
	Node *yaml.Node
}

// AlertsSection is the key of Settings.Alerts in the file.
const AlertsSection = "alerts"

// Given reports whether a flag, a variable or the file sets a setting of a name.
func (s *Settings) Given(name string) bool {
	return s.origins[name] != "" && s.origins[name] != "default"
}

// Restart returns the names of the settings that differ from old and cannot change
// without a restart, in the order of [Names].
func (s *Settings) Restart(old *Settings) []string {
	var names []string
	for _, one := range table {
		if !one.reloadable && one.text(s) != one.text(old) {
			names = append(names, one.name)
		}
	}
	return names
}
