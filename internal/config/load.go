package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/filewatch"
	"portwatcher/internal/model"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Loader loads settings from a command line, an environment and the file that they
// name. It is not safe for concurrent use.
type Loader struct {
	flags     *pflag.FlagSet
	environ   []string // each name one time
	variables map[string]string
	// defaultFile is read if no file is named and it exists.
	defaultFile string
	watch       *filewatch.Watch // of the file, since the last Load; nil without a file
	absent      bool             // the default file did not exist then
	alerts      Section          // of the file, at the last Load
}

// NewLoader returns a Loader for a parsed command line, which must not change later,
// and an environment in the form of [os.Environ].
func NewLoader(flags *pflag.FlagSet, environ []string) *Loader {
	l := &Loader{flags: flags, variables: make(map[string]string, len(environ)), defaultFile: lookup(ConfigFile).standard}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, found := l.variables[name]; name != "" && !found { // like getenv, which returns the first
			l.variables[name] = value
			l.environ = append(l.environ, entry)
		}
	}
	return l
}

// Load reads the file, if there is one, and returns the settings. Only settings that
// are registered on the flags are set, and the file is read only if [ConfigFile] is one
// of them. An empty variable counts as not set, except PORTWATCHER_HEALTH_SOCKET,
// PORTWATCHER_LISTEN and PORTWATCHER_CONFIG, where it means none. The error is one line
// for each problem, and wraps an [*Error] for each.
func (l *Loader) Load() (*Settings, error) {
	l.alerts = Section{}
	settings := &Settings{Warnings: unknownVariables(l.variables), origins: make(map[string]string, len(table))}
	given, err := l.given()
	if err != nil {
		return nil, err
	}
	file, problems := l.file(given)
	values := koanf.New(".")
	if err := errors.Join(values.Load(confmap.Provider(file, ""), nil), values.Merge(given)); err != nil {
		return nil, err
	}
	for _, s := range table {
		v, found := values.Get(s.key).(value)
		if !found || l.flags.Lookup(s.name) == nil {
			v = value{Text: s.standard, Source: "default"}
		}
		if err := s.set(settings, v); err != nil {
			problems = append(problems, &Error{Setting: cmp.Or(v.Name, "--"+s.name), Value: s.shown(v.Text), Err: err})
			continue
		}
		settings.origins[s.name] = v.origin()
		if warning := l.contradiction(settings, s, v); warning != "" {
			settings.Warnings = append(settings.Warnings, warning)
		}
	}
	if err := join(problems); err != nil {
		return nil, err
	}
	settings.Alerts = l.alerts
	return settings, nil
}

// FileChanged reports whether the content of the settings' file, or whether it can be
// read, differs from that at the last call of FileChanged or Load.
func (l *Loader) FileChanged() bool { return l.watch != nil && l.watch.Changed() }

// absentInterval is the time between two searches for the default file: an idle portwatcher
// is not woken more often for what most users do not have.
const absentInterval = 10 * time.Second

// FileInterval returns the time between two calls of FileChanged that the caller should
// keep.
func (l *Loader) FileInterval() time.Duration {
	if l.absent || l.watch == nil {
		return clock.Rest(absentInterval) // with other wake-ups of the process
	}
	return filewatch.Interval
}

// given returns the values of the environment and of the command line, by key.
func (l *Loader) given() (*koanf.Koanf, error) {
	variables := func(nameOf func(*setting) string) koanf.Provider {
		environ := func() []string { return l.environ }
		return env.Provider("", env.Opt{EnvironFunc: environ, TransformFunc: func(name, text string) (string, any) {
			for _, s := range table {
				if nameOf(s) == name && s.counts(name, text) {
					return s.key, value{text, "environment", name}
				}
			}
			return "", nil
		}})
	}
	flags := posflag.ProviderWithFlag(l.flags, "", nil, func(f *pflag.Flag) (string, any) {
		return strings.ReplaceAll(f.Name, "-", "_"), value{f.Value.String(), "flag", "--" + f.Name}
	})
	given := koanf.New(".")
	short := variables(func(s *setting) string { return s.short })
	return given, errors.Join(given.Load(short, nil), given.Load(variables((*setting).variable), nil), given.Load(flags, nil))
}

// counts reports whether a variable with this value sets the setting.
func (s *setting) counts(variable, text string) bool {
	if text == "" {
		return s.emptiable && variable == s.variable()
	}
	if variable == s.short {
		converted, err := s.fromShort(text)
		return err != nil || converted != ""
	}
	return true
}

// contradiction returns a warning if both variables of a setting are given with
// different values, else "". The short variable may differ if other programs read it too.
func (l *Loader) contradiction(settings *Settings, s *setting, v value) string {
	short := value{l.variables[s.short], "environment", s.short}
	if v.Name != s.variable() || s.short == "" || s.shared || !s.counts(s.short, short.Text) {
		return ""
	}
	var other Settings
	if err := s.set(&other, short); err == nil && s.text(&other) == s.text(settings) {
		return ""
	}
	return fmt.Sprintf("%s: %s: without effect, since %s is %s: the longer name wins",
		s.short, model.Quoted(s.shown(short.Text)), v.Name, model.Quoted(s.shown(v.Text)))
}

// file returns the values of the file that the environment or the command line names, or
// of the default file, by key. The value of [ConfigFile] is the path.
func (l *Loader) file(given *koanf.Koanf) (map[string]any, []*Error) {
	s := lookup(ConfigFile)
	if l.flags.Lookup(s.name) == nil {
		return nil, nil
	}
	v, named := given.Get(s.key).(value)
	if !named {
		v = value{Text: l.defaultFile, Source: "default"}
	}
	var settings Settings
	if err := s.set(&settings, v); err != nil || settings.ConfigFile == "" {
		return nil, nil // Load reports the error
	}
	path := settings.ConfigFile
	l.watch = filewatch.New(path) // before it is read, so that FileChanged reports a later change
	content, err := readFile(path)
	l.absent = errors.Is(err, fs.ErrNotExist) && !named
	if l.absent {
		v.Source += "; there is no such file"
		return map[string]any{s.key: v}, nil
	}
	if err != nil {
		return nil, []*Error{{Setting: cmp.Or(v.Name, "--"+s.name), Value: path, Err: err}}
	}
	values, alerts, problems := parseFile(path, content)
	values[s.key], l.alerts = v, alerts
	return values, problems
}
