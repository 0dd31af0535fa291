package main

import (
	"errors"
	"os"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/alert"
	"portwatcher/internal/alert/notify"
	"portwatcher/internal/config"
	"portwatcher/internal/version"
)

// smtpVariable is the name under which a receiver finds the setting --smtp-url.
const smtpVariable = "SMTP_URL"

// parseAlerts checks the settings of alerts.
func parseAlerts(s *config.Settings) (*alert.Config, error) {
	if s.AlertEmail != "" && s.SMTPURL == "" {
		return nil, usageError{errors.New("--alert-email: it needs a mail server: set --smtp-url, or SMTP_URL")}
	}
	c, err := alert.Parse(alert.Settings{
		File: s.Alerts.File, Node: s.Alerts.Node, PublicURL: s.PublicURL,
		Webhook: s.AlertWebhook, Email: s.AlertEmail, SMTPVariable: smtpVariable,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// newReceiver returns a function that makes the receiver of an entry.
func newReceiver(s *config.Settings, log logrus.FieldLogger) func(notify.ReceiverConfig) (notify.Receiver, error) {
	return func(c notify.ReceiverConfig) (notify.Receiver, error) {
		return notify.New(c, notify.Options{Version: version.Version, Log: func(text string) { log.Info(text) }, Getenv: func(name string) string {
			if name == smtpVariable {
				return s.SMTPURL
			}
			return os.Getenv(name)
		}})
	}
}

// prepareAlerts makes the receivers of the settings. Who takes the setup closes it.
func prepareAlerts(s *config.Settings, log logrus.FieldLogger) (*alert.Setup, error) {
	c, err := parseAlerts(s)
	if err != nil {
		return nil, err
	}
	setup, err := alert.Prepare(c, newReceiver(s, log))
	if err != nil {
		return nil, usageError{err}
	}
	return setup, nil
}
