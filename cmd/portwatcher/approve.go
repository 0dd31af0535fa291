package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"portwatcher/internal/config"
	"portwatcher/internal/expect"
	"portwatcher/internal/filewatch"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

func expectApproveCommand() *cobra.Command {
	var reason string
	var cmd *cobra.Command
	cmd = settingsCommand("approve EVENT_ID", "Add an entry for the drift of an event to the file", []string{
		config.Expect, config.State, config.ConfigFile,
	}, func(ctx context.Context, s *config.Settings) error {
		return approve(ctx, s, cmd.Flags().Args(), reason)
	})
	cmd.Args = cobra.ArbitraryArgs
	cmd.Long = `Adds an entry to the file of expectations, by which the drift of a recorded event is
expected from now on, with a reason and the date. What else is in the file, with its
comments, stays as it is. "portwatcher events --drift unexpected --format json" and the
page show the ids.`
	cmd.Example = `  portwatcher expect approve 4711 --reason "the new metrics port"`
	cmd.Flags().StringVar(&reason, "reason", "", "why it is expected; it becomes the entry's reason")
	return cmd
}

func approve(ctx context.Context, s *config.Settings, arguments []string, reason string) error {
	if len(arguments) != 1 {
		return usageError{fmt.Errorf("%d events to approve: allowed is one id, such as 4711", len(arguments))}
	}
	id, err := strconv.ParseUint(arguments[0], 10, 63)
	if err != nil || id == 0 {
		return usageError{fmt.Errorf("event %q: allowed is the id of an event, such as 4711", arguments[0])}
	}
	if strings.TrimSpace(reason) == "" {
		return flagError("reason", reason, "allowed is a text: why the port is expected")
	}
	if s.Expect == "" {
		return usageError{errors.New("--expect: empty: allowed is the path of a file of expectations")}
	}
	e, err := eventOf(ctx, s, id)
	if err != nil {
		return err
	}
	content, err := filewatch.Read(s.Expect, filewatch.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		content, err = []byte("version: 1\nexpect: []\n"), nil
	}
	if err != nil {
		return usageError{&config.Error{Setting: "--" + config.Expect, Value: s.Expect, Err: err}}
	}
	changed, err := expect.Approve(s.Expect, content, e, strings.TrimSpace(reason), time.Now())
	if err != nil {
		return usageError{err}
	}
	if err := replaceFile(s.Expect, changed); err != nil {
		return fmt.Errorf("write %s: %w", s.Expect, err)
	}
	fmt.Printf("%s: the entry for %s %d/%s was added.\n", s.Expect, e.Container.Target(), e.Port, e.Protocol)
	return nil
}

// eventOf returns the event of an id.
func eventOf(ctx context.Context, s *config.Settings, id uint64) (found *model.Event, err error) {
	err = readJournal(s, func(reader *journal.Reader) error {
		query := journal.Query{AfterID: id - 1, BeforeID: id + 1, Limit: 1, FromStart: true}
		for e, err := range reader.Events(ctx, query) {
			if err != nil {
				return err
			}
			found = e
		}
		if found == nil {
			return usageError{fmt.Errorf("event %d: the journal %s does not have it: allowed are the ids of recorded events", id, s.State)}
		}
		return nil
	})
	return found, err
}

// replaceFile replaces the content of a file at once, so that no reader finds a part of it. A file
// that is mounted by itself cannot be replaced, and is written where it is.
func replaceFile(path string, content []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target, err = path, nil
	}
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // where it was renamed there is none
	_, err = temporary.Write(content)
	if err == nil {
		err = temporary.Chmod(mode)
	}
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary.Name(), target); errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
		return os.WriteFile(target, content, mode)
	}
	return err
}
