package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
)

func configCommand() *cobra.Command {
	var example, asJSON bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the settings in effect, and where each came from",
		Long: `Prints the settings that result from the flags, the environment and the file, as
a valid configuration file with comments about where each came from.

With --example, prints a complete, commented file with every setting at its
default.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if example {
				return failure(config.WriteExample(out))
			}
			settings, err := config.NewLoader(cmd.Flags(), os.Environ()).Load()
			if err != nil {
				return err
			}
			if _, err := parseAlerts(settings); err != nil {
				return err
			}
			for _, warning := range settings.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "portwatcher: "+warning)
			}
			if asJSON {
				return failure(config.WriteJSON(out, settings))
			}
			return failure(config.WriteYAML(out, settings))
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&example, "example", false, "print a commented file with every setting at its default")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the settings in effect as JSON")
	cmd.MarkFlagsMutuallyExclusive("example", "json")
	config.Register(cmd.Flags(), config.Names()...)
	return cmd
}

// failure marks an error as a failure at run time.
func failure(err error) error {
	if err == nil {
		return nil
	}
	return runtimeError{err}
}
