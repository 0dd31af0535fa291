package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/model"
	"portwatcher/internal/wait"
)

const (
	// maxTimeout bounds --timeout of `portwatcher wait`.
	maxTimeout = 24 * time.Hour
	// maxTargets bounds the ports of one call: each is a request that the instance keeps open.
	maxTargets = 50
)

type waitFlags struct {
	instance instanceFlags
	timeout  time.Duration
	exposure []string
	count    string
	quiet    bool
}

func waitCommand() *cobra.Command {
	var flags waitFlags
	var cmd *cobra.Command
	cmd = settingsCommand("wait CONTAINER:PORT[/PROTOCOL] ...", "Wait until ports of containers are open", []string{
		config.Source, config.UDPClients, config.DockerHost, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error { return waitFor(ctx, cmd, s, &flags) })
	cmd.Args = cobra.ArbitraryArgs
	cmd.Long = `Waits until each of the ports is open, and prints a line for each. It needs no
shell inside the container. CONTAINER has the form of MONITOR_CONTAINERS: a name, a
Compose service, project/service, a pattern with * ? [a-z], label:key=value. Where
several containers match, one of them is enough, unless --count asks for more. The
container need not exist yet.

It asks a running "portwatcher run", or watches by itself where none answers at the
default address; the settings below from --source on have an effect only then.

The exit status is 0 when all were open, 1 at the timeout, 2 for wrong usage.`
	cmd.Example = `  portwatcher wait web:80 db:5432/tcp --timeout 30s
  portwatcher wait shop/web:80 --exposure published
  portwatcher wait shop/web:80 --count 3
  portwatcher wait web:80 --timeout 0 --quiet && echo "it is up"`
	own := cmd.Flags()
	own.DurationVar(&flags.timeout, "timeout", 30*time.Second, "how long to wait at most, 0 to 24h; 0 checks once")
	own.StringSliceVar(&flags.exposure, "exposure", nil, "count only ports that can be reached so: loopback, network, lan, published, host; may be repeated")
	own.StringVar(&flags.count, "count", "1", "in how many containers each port has to be open: a number, or all for each that runs and matches")
	own.BoolVarP(&flags.quiet, "quiet", "q", false, "print nothing when a port is open")
	flags.instance.register(cmd)
	return cmd
}

func waitFor(ctx context.Context, cmd *cobra.Command, s *config.Settings, flags *waitFlags) error {
	targets, options, err := flags.parse(cmd.Flags().Args())
	if err != nil {
		return err
	}
	client, err := flags.instance.connect(ctx, cmd)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
		return wait.Run(ctx, wait.Remote(client), targets, options)
	}
	return waitHere(ctx, s, targets, options)
}

func (f *waitFlags) parse(arguments []string) ([]wait.Target, wait.Options, error) {
	o := wait.Options{Timeout: f.timeout}
	if !f.quiet {
		o.Output = os.Stdout
	}
	if f.timeout < 0 || f.timeout > maxTimeout {
		return nil, o, flagError("timeout", f.timeout.String(), "allowed are 0 (check once) to %s", maxTimeout)
	}
	for _, text := range f.exposure {
		exposure, err := model.ParseExposure(text)
		if err != nil {
			return nil, o, flagError("exposure", text, "%w", err)
		}
		o.Exposures = append(o.Exposures, exposure)
	}
	var err error
	if o.Count, err = model.ParseCount(f.count); err != nil {
		return nil, o, flagError("count", f.count, "%w", err)
	}
	if len(arguments) == 0 {
		return nil, o, usageError{errors.New("no port to wait for: allowed are CONTAINER:PORT and CONTAINER:PORT/PROTOCOL, such as web:80")}
	}
	if len(arguments) > maxTargets {
		return nil, o, usageError{fmt.Errorf("%d ports to wait for: allowed are at most %d", len(arguments), maxTargets)}
	}
	targets := make([]wait.Target, len(arguments))
	for i, text := range arguments {
		if targets[i], err = wait.ParseTarget(text); err != nil {
			return nil, o, usageError{err}
		}
	}
	return targets, o, nil
}

// waitHere waits with a capture in this process.
func waitHere(ctx context.Context, s *config.Settings, targets []wait.Target, options wait.Options) (err error) {
	var names []string
	for _, t := range targets {
		names = append(names, t.Container)
		s.Host = s.Host || t.Host()
	}
	if s.Containers, err = model.ParseSelection(strings.Join(names, ",")); err != nil {
		return usageError{err}
	}
	s.LogLevel = logrus.ErrorLevel // scripts do not need the steps of the start
	log, docker, err := prepareList(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	// One scan is quick, and often enough.
	local := wait.NewLocal()
	first := newCapture(s, log, docker, nil)
	open, failed := first.List(ctx)
	if options.Timeout == 0 {
		local.Use(first.View, func() error { return failed })
		return wait.Run(ctx, local, targets, options)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := newCapture(s, log, docker, func(o *capture.Options) {
		changed := func(*model.Event) { local.Event() }
		o.Sinks = []capture.Sink{watchLive(ctx, changed, func(uint64) { local.Event() })}
	})
	local.Use(func() *model.View { // until the first scan has ended, also with the result of the one before
		view := *c.View()
		if c.Ready() != nil {
			view.Open = slices.Concat(open, view.Open)
		}
		return &view
	}, c.Ready)
	watching := start(ctx, func(ctx context.Context) error {
		err := c.Run(ctx)
		cancel(err)
		return err
	})
	err = wait.Run(ctx, local, targets, options)
	watching.stop()
	<-watching.done
	return err
}
