package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"portwatcher/internal/model"
)

// Bounds of what is served.
const (
	minSeries = 1
	maxSeries = 1_000_000
)

// setListen takes HOST:PORT; the host is a name, an address or empty for all.
func (s *Settings) setListen(value string) error {
	if value == "" {
		s.Listen = ""
		return nil
	}
	allowed := fmt.Errorf("allowed is HOST:PORT, such as 127.0.0.1:9888, and empty for none")
	host, number, err := net.SplitHostPort(value)
	if err != nil || strings.ContainsAny(host, " /") {
		return allowed
	}
	if _, err := strconv.ParseUint(number, 10, 16); err != nil {
		return allowed
	}
	s.Listen = value
	return nil
}

// pathOrNone takes a path, empty for none.
func pathOrNone(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value != "" {
			value = filepath.Clean(value)
		}
		*field(s) = value
		return nil
	}
}

// setAllowedHosts takes host names.
func (s *Settings) setAllowedHosts(value string) error {
	var hosts []string
	for _, name := range model.Words(value) {
		if strings.ContainsAny(name, ":/*@") || len(name) > 253 {
			return &model.EntryError{Entry: name, Err: errors.New("allowed are host names without a port, separated by commas or blanks")}
		}
		hosts = append(hosts, strings.ToLower(name))
	}
	s.AllowedHosts = hosts
	return nil
}

func (s *Settings) setMetricsMaxSeries(value string) error {
	count, err := strconv.Atoi(value)
	if err != nil || count < minSeries || count > maxSeries {
		return fmt.Errorf("allowed are %d to %d", minSeries, maxSeries)
	}
	s.MetricsMaxSeries = count
	return nil
}
