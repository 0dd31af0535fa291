package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"portwatcher/internal/model"

	"github.com/spf13/pflag"
)

// Loader makes settings of a command line, an environment and the file that
// they name. It may be used by several goroutines.
type Loader struct {
	flags     *pflag.FlagSet
	variables map[string]string
	// standardFile is read where no file is named and it exists.
	standardFile string
}

// NewLoader takes a parsed command line, which must not change any more, and an
// environment in the form of [os.Environ].
func NewLoader(flags *pflag.FlagSet, environ []string) *Loader {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := variables[name]; !twice {
			variables[name] = value
		}
	}
	return &Loader{flags: flags, variables: variables, standardFile: DefaultFile}
}

// Load returns the settings of a command line and an environment, as
// [Loader.Load] does.
func Load(flags *pflag.FlagSet, environ []string) (*Settings, error) {
	return NewLoader(flags, environ).Load()
}

// Load reads the file, if there is one, and returns the settings. Only settings
// that were registered on the flags are taken over, and the file is read only
// where [ConfigFile] is one of them. An empty variable is one that is not set,
// but PORTWATCHER_HEALTH_SOCKET and PORTWATCHER_CONFIG, where it means none. The
// error is an [*Error], or [Errors] where there are several.
func (l *Loader) Load() (*Settings, error) {
	settings := &Settings{Warnings: unknownVariables(l.variables), origins: make(map[string]string, len(table))}
	var problems []*Error
	for _, s := range table {
		standard := s.standard
		if s.name == ConfigFile {
			standard = l.standardFile
		}
		if err := s.apply(settings, standard, s.set); err != nil {
			return nil, &Error{Setting: "--" + s.name, Value: standard, Err: err}
		}
		settings.origins[s.name] = "default"
	}
	file, failed := l.file(settings)
	problems = append(problems, failed...)
	for _, s := range table {
		if l.flags.Lookup(s.name) == nil {
			continue
		}
		if value, found := file.values[s.name]; found {
			if err := s.apply(settings, value.text, s.set); err != nil { // checked before, but a folder may have come or gone
				problems = append(problems, &Error{File: file.name, Line: value.line, Setting: s.key(), Value: s.shown(value.text), Err: err})
				continue
			}
			settings.origins[s.name] = "file " + place(file.name, value.line)
		}
		if err := l.override(settings, s); err != nil {
			problems = append(problems, err)
		}
		if warning := l.contradiction(settings, s); warning != "" {
			settings.Warnings = append(settings.Warnings, warning)
		}
	}
	if err := join(problems); err != nil {
		return nil, err
	}
	return settings, nil
}

// override takes a value from the command line or the environment, if there is
// one.
func (l *Loader) override(settings *Settings, s *setting) *Error {
	name, origin, value, set := l.given(s)
	if set == nil {
		return nil
	}
	err := s.apply(settings, value, set)
	if errors.Is(err, errNoValue) {
		return nil
	}
	if err != nil {
		return &Error{Setting: name, Value: s.shown(value), Err: err}
	}
	settings.origins[s.name] = origin
	return nil
}

// contradiction returns a warning where both variables of a setting are given
// and say different things, else "". A variable that other programs read too may
// well be different.
func (l *Loader) contradiction(settings *Settings, s *setting) string {
	name, _, value, set := l.given(s)
	if set == nil || name != s.variable() || s.short == nil || s.short.shared || l.variables[s.short.name] == "" {
		return ""
	}
	var other Settings
	err := s.apply(&other, l.variables[s.short.name], s.short.set)
	if errors.Is(err, errNoValue) || err == nil && s.get(&other) == s.get(settings) {
		return ""
	}
	return fmt.Sprintf("%s: %s: without effect, since %s is %s: the longer name wins",
		s.short.name, model.Quoted(s.shown(l.variables[s.short.name])), name, model.Quoted(s.shown(value)))
}

// given returns the form that wins, its value and its setter: nil if there is
// none.
func (l *Loader) given(s *setting) (name, origin, value string, set func(*Settings, string) error) {
	flag := l.flags.Lookup(s.name)
	if flag.Changed {
		return "--" + s.name, "flag --" + s.name, flag.Value.String(), s.set
	}
	name = s.variable()
	value, found := l.variables[name]
	if found && (value != "" || s.emptyCounts) {
		return name, "environment " + name, value, s.set
	}
	if s.short != nil && l.variables[s.short.name] != "" {
		name = s.short.name
		return name, "environment " + name, l.variables[name], s.short.set
	}
	return "", "", "", nil
}

// file reads the file that the flags and the environment name.
func (l *Loader) file(settings *Settings) (file, []*Error) {
	s := lookup(ConfigFile)
	if l.flags.Lookup(s.name) == nil {
		return file{}, nil
	}
	if err := l.override(settings, s); err != nil {
		return file{}, nil // Load tells of it
	}
	if settings.ConfigFile == "" {
		return file{}, nil
	}
	name, _, _, set := l.given(s)
	content, err := readFile(settings.ConfigFile, set != nil)
	if err != nil {
		if name == "" {
			name = "--" + s.name
		}
		return file{}, []*Error{{Setting: name, Value: settings.ConfigFile, Err: err}}
	}
	settings.loaded = stateOf(content, nil)
	if content == nil {
		settings.origins[ConfigFile] = "default; there is no such file"
		return file{}, nil
	}
	return parseFile(settings.ConfigFile, content)
}

// lookup returns the setting of a name that is in the table.
func lookup(name string) *setting {
	for _, s := range table {
		if s.name == name {
			return s
		}
	}
	panic("config: no such setting: " + strconv.Quote(name))
}

// shown returns a value, or what stands for it where it is a secret.
func (s *setting) shown(value string) string {
	if s.secret && value != "" {
		return "(secret)"
	}
	return value
}
