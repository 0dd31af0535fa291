package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portwatcher/internal/config"
)

// knownCommand refuses an unknown command, in one line that names them all. It
// implements [cobra.PositionalArgs] of the root command.
func knownCommand(cmd *cobra.Command, arguments []string) error {
	if len(arguments) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	text := fmt.Sprintf("%q is not a command; allowed are %s", arguments[0], strings.Join(names, ", "))
	if near := cmd.SuggestionsFor(arguments[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text)
}

// noArguments refuses arguments, and suggests the flag that may have been meant. It
// implements [cobra.PositionalArgs].
func noArguments(cmd *cobra.Command, arguments []string) error {
	if len(arguments) == 0 {
		return nil
	}
	text := fmt.Sprintf("%s takes no arguments, but %q is one", cmd.CommandPath(), arguments[0])
	for _, flag := range []string{config.MonitorContainers, "container"} {
		if cmd.Flags().Lookup(flag) != nil {
			return fmt.Errorf("%s; containers are chosen by --%s, as in %s --%s web", text, flag, cmd.CommandPath(), flag)
		}
	}
	return fmt.Errorf("%s; %s", text, seeHelp(cmd))
}

// flagProblem adds a suggestion to the library's error about a flag.
func flagProblem(cmd *cobra.Command, problem error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](problem); ok {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := config.Nearest(unknown.GetSpecifiedName(), names); near != "" {
			return fmt.Errorf("%w; did you mean --%s? %s", problem, near, seeHelp(cmd))
		}
	}
	return fmt.Errorf("%w; %s", problem, seeHelp(cmd))
}

func seeHelp(cmd *cobra.Command) string {
	return fmt.Sprintf("%s --help shows what is allowed", cmd.CommandPath())
}

// plainSwitches makes the help show a switch as "--help", without "[=true|false]".
func plainSwitches(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			f.Value = plainSwitch{f.Value}
		}
	})
}

// plainSwitch hides the type by which the library recognizes its own switches.
type plainSwitch struct{ pflag.Value }
