package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/attribute"
	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/preflight"
	"portwatcher/internal/probe"
	"portwatcher/internal/procfs"
	"portwatcher/internal/source"
)

func newLogger(s *config.Settings) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(os.Stderr)
	setLogger(log, s)
	for _, warning := range s.Warnings {
		log.Warn(warning)
	}
	return log
}

// setLogger applies the settings of the log.
func setLogger(log *logrus.Logger, s *config.Settings) {
	const timestamp = "2006-01-02T15:04:05.000Z07:00"
	log.SetLevel(s.LogLevel)
	if s.LogFormat == "json" {
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: timestamp})
	} else {
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: true, TimestampFormat: timestamp})
	}
}

// prepare checks the host, and prepares the logger and the engine. The caller closes the
// engine.
func prepare(s *config.Settings) (*logrus.Logger, *engine.Engine, error) {
	log := newLogger(s)
	if err := inspectHost(s, log); err != nil {
		return nil, nil, err
	}
	docker, err := newEngine(s, log)
	return log, docker, err
}

// prepareList is prepare for [capture.Capture.List], which does not load eBPF: it returns
// an error where --source requires eBPF and eBPF does not work.
func prepareList(s *config.Settings) (*logrus.Logger, *engine.Engine, error) {
	log, docker, err := prepare(s)
	if err != nil || s.Source != "ebpf" {
		return log, docker, err
	}
	if err := preflight.Failure(preflight.Sources(preflightOptions(s))); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--source ebpf: %w", err), docker.Close())
	}
	return log, docker, nil
}

// newEngine prepares the engine. A bad address is an error of the settings.
func newEngine(s *config.Settings, log logrus.FieldLogger) (*engine.Engine, error) {
	e, err := engine.New(engine.Options{
		Host: s.DockerHost, Logger: log,
		Alive:    func(c *model.Container) bool { return procfs.Exists(s.ProcRoot, c.PID) },
		Replaced: func(path string) (string, error) { return procfs.Replaced(s.ProcRoot, path) },
	})
	if err != nil {
		return nil, usageError{err}
	}
	return e, nil
}

// newCapture prepares the capture. change, which may be nil, adds the sinks.
func newCapture(s *config.Settings, log logrus.FieldLogger, e *engine.Engine, change func(*capture.Options)) *capture.Capture {
	finder := attribute.NewFinder(s.ProcRoot)
	finder.Arguments = s.ProcessArguments
	cgroups, err := attribute.OpenCgroups(s.CgroupRoot)
	if err != nil {
		cgroups = nil // preflight has reported it
	}
	options := capture.Options{
		Tuning: tuning(s, log), Engine: e, EngineAddress: e.Host(), Logger: log, HostName: s.HostName,
		ProcRoot: s.ProcRoot, Host: s.Host || s.Containers.NamesHost(), Finder: finder, Attributor: attribute.NewAttributor(finder, cgroups),
		Mode: source.Mode(s.Source), OpenProbe: openProbe(s, log),
	}
	if change != nil {
		change(&options)
	}
	return capture.New(options)
}

// tuning returns the settings that can change while the program runs.
func tuning(s *config.Settings, log logrus.FieldLogger) capture.Tuning {
	return capture.Tuning{
		Selection: s.Containers, Enabled: enabled(log), Reported: reported(s.WatchPorts, log),
		ScanInterval: s.ScanInterval, BurstScans: s.BurstScans, BurstDelay: s.BurstDelay,
		CloseGrace: s.CloseGrace, UDPClients: s.UDPClients,
		BurstLimit: s.BurstLimit, Buffers: int(s.ReceiveBuffers),
	}
}

func openProbe(s *config.Settings, log logrus.FieldLogger) func() (source.Probe, error) {
	return func() (source.Probe, error) {
		p, err := probe.Open(probe.Options{CgroupRoot: s.CgroupRoot, BurstLimit: s.BurstLimit, UDPClients: s.UDPClients})
		if err != nil {
			return nil, err // not a nil *probe.Probe in an interface
		}
		log.WithError(p.Fallback()).Debugf("The eBPF programs are attached to %s.", strings.Join(p.Hooks(), ", "))
		return p, nil
	}
}

// enabled decides by the container's own label. It logs invalid labels, one time for each
// container.
func enabled(log logrus.FieldLogger) func(*model.Container) bool {
	var notices source.Notices
	return func(c *model.Container) bool {
		on, err := config.Enabled(c)
		on = on || err != nil
		if problems := labelProblems(c); on && len(problems) > 0 && notices.First(c.ID) {
			for _, problem := range problems {
				log.WithField("container", c.Name).Warn(problem)
			}
		}
		return on
	}
}

// labelProblems returns a line for each invalid label of a container.
func labelProblems(c *model.Container) []string {
	var problems []string
	_, enabled := config.Enabled(c)
	_, ignored := config.Ignored(c)
	for _, err := range []error{enabled, ignored, config.Expected(c)} {
		if err != nil {
			problems = append(problems, fmt.Sprintf("The container's label is invalid, and is ignored: %v", err))
		}
	}
	for _, label := range config.UnknownLabels(c) {
		problems = append(problems, fmt.Sprintf("The container's label %s is no setting of portwatcher, and is ignored.", label))
	}
	return problems
}

// maxIgnored bounds the parsed labels: hosts that run tests start thousands of containers a
// day.
const maxIgnored = 1000

// reported decides by the ports to watch and the container's own label.
func reported(watched model.PortSet, log logrus.FieldLogger) func(*model.Container, model.Protocol, uint16) bool {
	ignored := map[string]model.PortSet{} // by the label's value; belongs to the capture's goroutine
	return func(c *model.Container, protocol model.Protocol, number uint16) bool {
		if !watched.Empty() && !watched.Contains(protocol, number) {
			return false
		}
		if c == nil || c.Labels[config.LabelIgnore] == "" {
			return true
		}
		text := c.Labels[config.LabelIgnore]
		rules, known := ignored[text]
		if !known {
			var err error
			if rules, err = config.Ignored(c); err != nil {
				log.WithField("container", c.Name).WithError(err).Debug("The label is ignored.") // enabled has logged it
			}
			if len(ignored) >= maxIgnored {
				clear(ignored)
			}
			ignored[text] = rules
		}
		return !rules.Contains(protocol, number)
	}
}

func preflightOptions(s *config.Settings) preflight.Options {
	return preflight.Options{ProcRoot: s.ProcRoot, CgroupRoot: s.CgroupRoot, Source: s.Source}
}

// inspectHost logs what is missing on this host. It returns an error where nothing can be
// watched.
func inspectHost(s *config.Settings, log logrus.FieldLogger) error {
	results := preflight.Host(preflightOptions(s))
	if err := preflight.Failure(results); err != nil {
		return err
	}
	for _, r := range results {
		if r.State == preflight.Degraded {
			log.Warnf("%s: %s; %s", r.Name, r.Detail, r.Remedy)
		}
	}
	return nil
}

// closeWith closes c and joins its error to err.
func closeWith(err *error, c interface{ Close() error }) { *err = errors.Join(*err, c.Close()) }
