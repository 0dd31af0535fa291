package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/top"
)

func topCommand() *cobra.Command {
	var instance instanceFlags
	var cmd *cobra.Command
	cmd = settingsCommand("top", "Show open ports and events live in the terminal", []string{
		config.MonitorContainers, config.WatchPorts, config.Source, config.ScanInterval, config.CloseGrace, config.UDPClients, config.Host,
		config.DockerHost, config.HostName, config.ProcRoot, config.CgroupRoot, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error { return showTop(ctx, cmd, s, &instance) })
	cmd.Long = `Shows open ports and events live in the terminal. It asks a running
"portwatcher run", or watches by itself where none answers at the default address.
The first line shows which. ? shows the keys, q quits.

The settings below from --monitor-containers on have an effect only while it watches
by itself; it prints no events and keeps no journal then.`
	instance.register(cmd)
	return cmd
}

func showTop(ctx context.Context, cmd *cobra.Command, s *config.Settings, instance *instanceFlags) (err error) {
	if err := top.CheckTerminal(os.Stdout); err != nil {
		return usageError{err}
	}
	c, err := instance.connect(ctx, cmd)
	if err != nil {
		return err
	}
	board := top.NewBoard()
	options := top.Options{Board: board, Output: os.Stdout, Input: os.Stdin, Environment: os.Environ()}
	if c != nil {
		defer c.Close()
		options.Source = top.Remote(c)
		return top.Run(ctx, options)
	}
	log, docker, err := prepare(s)
	if err != nil {
		return err
	}
	defer closeWith(&err, docker)
	// The log would overwrite the view.
	warnings := &boardLog{board: board}
	log.SetOutput(io.Discard)
	log.AddHook(warnings)
	defer warnings.print(os.Stderr)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watching := newCapture(s, log, docker, func(o *capture.Options) {
		o.Sinks = []capture.Sink{watchLive(ctx, board.Event, func(n uint64) { board.Note("%d events are missing: they came too fast", n) })}
	})
	options.Source = top.Local(watching, board, instance.why())
	return top.Run(ctx, options)
}

// boardLog shows warnings in the view, and keeps the last of them until the view has ended. It
// implements [logrus.Hook].
type boardLog struct {
	board *top.Board

	mutex sync.Mutex
	kept  []string
}

const maxWarnings = 20

// Levels implements [logrus.Hook].
func (l *boardLog) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

// Fire implements [logrus.Hook].
func (l *boardLog) Fire(entry *logrus.Entry) error {
	text := entry.Message
	if container, ok := entry.Data["container"]; ok {
		text = fmt.Sprintf("%v: %s", container, text)
	}
	if err, ok := entry.Data[logrus.ErrorKey]; ok {
		text += fmt.Sprintf(" (%v)", err)
	}
	l.board.Note("%s", text)
	line, err := entry.String()
	if err != nil {
		return err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.kept = append(l.kept, line); len(l.kept) > maxWarnings {
		l.kept = l.kept[1:]
	}
	return nil
}

func (l *boardLog) print(w io.Writer) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, line := range l.kept {
		fmt.Fprint(w, line)
	}
}
