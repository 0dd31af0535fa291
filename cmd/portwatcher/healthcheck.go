package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"portwatcher/internal/config"
	"portwatcher/internal/health"
)

func healthcheckCommand() *cobra.Command {
	return settingsCommand("healthcheck", "Exit with 0 while a running instance is ready", []string{config.HealthSocket},
		func(ctx context.Context, s *config.Settings) error {
			if s.HealthSocket == "" {
				return errors.New("--health-socket is empty: there is no instance to ask")
			}
			if err := health.Check(ctx, s.HealthSocket); err != nil {
				return err
			}
			fmt.Println("ready")
			return nil
		})
}
