package config

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/model"

	"github.com/sirupsen/logrus"
)

// Bounds of the settings that are times.
const (
	minScanInterval = 10 * time.Millisecond
	maxScanInterval = time.Hour
	maxBurstScans   = 100
	maxBurstDelay   = time.Minute
	maxCloseGrace   = time.Hour
)

func scanInterval(s *Settings) *time.Duration { return &s.ScanInterval }
func burstDelay(s *Settings) *time.Duration   { return &s.BurstDelay }
func closeGrace(s *Settings) *time.Duration   { return &s.CloseGrace }

// durationSetter takes Go durations within bounds.
func durationSetter(low, high time.Duration, field func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		parsed, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("allowed are %s to %s, with a unit as in 500ms or 2s", short(low), short(high))
		}
		if parsed < low || parsed > high {
			return fmt.Errorf("allowed are %s to %s", short(low), short(high))
		}
		*field(s) = parsed
		return nil
	}
}

// numberSetter takes decimal numbers of a unit within bounds.
func numberSetter(unit time.Duration, name string, low, high time.Duration, field func(*Settings) *time.Duration) func(*Settings, string) error {
	lowest, highest := float64(low)/float64(unit), float64(high)/float64(unit)
	return func(s *Settings, value string) error {
		number, err := strconv.ParseFloat(value, 64)
		// A comparison with NaN is false.
		if err != nil || !(number >= lowest && number <= highest) {
			return fmt.Errorf("allowed are %s to %s (%s)",
				strconv.FormatFloat(lowest, 'f', -1, 64), strconv.FormatFloat(highest, 'f', -1, 64), name)
		}
		*field(s) = time.Duration(math.Round(number * float64(unit)))
		return nil
	}
}

// short writes a duration without zero parts: 1h, not 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if d == 0 {
		return "0"
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// choice takes one of a few words.
func choice(field func(*Settings) *string, words ...string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if !slices.Contains(words, value) {
			return fmt.Errorf("allowed are %s", strings.Join(words, ", "))
		}
		*field(s) = value
		return nil
	}
}

// folder takes an absolute path.
func folder(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("allowed is an absolute path")
		}
		*field(s) = path.Clean(value)
		return nil
	}
}

func (s *Settings) setContainers(value string) error {
	selection, err := model.ParseSelection(value)
	if err != nil {
		return err
	}
	s.Containers = selection
	return nil
}

func (s *Settings) setWatchPorts(value string) error {
	ports, err := model.ParsePorts(value)
	if err != nil {
		return err
	}
	s.WatchPorts = ports
	return nil
}

func (s *Settings) setUseProc(value string) error {
	proc, err := parseSwitch(value)
	if err != nil {
		return err
	}
	if !proc {
		return errNoValue
	}
	s.Source = "proc"
	return nil
}

func (s *Settings) setBurstScans(value string) error {
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 || count > maxBurstScans {
		return fmt.Errorf("allowed are 1 to %d", maxBurstScans)
	}
	s.BurstScans = count
	return nil
}

func (s *Settings) setUDPClients(value string) error {
	enabled, err := parseSwitch(value)
	if err != nil {
		return err
	}
	s.UDPClients = enabled
	return nil
}

// parseSwitch takes the words for on and off.
func parseSwitch(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("allowed are true, 1, yes, false, 0, no")
}

func (s *Settings) setLogLevel(value string) error {
	levels := []logrus.Level{logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel, logrus.DebugLevel, logrus.TraceLevel}
	level, err := logrus.ParseLevel(value)
	if err != nil || !slices.Contains(levels, level) {
		return fmt.Errorf("allowed are error, warn, info, debug, trace")
	}
	s.LogLevel = level
	return nil
}

func (s *Settings) logLevel() string {
	if s.LogLevel == logrus.WarnLevel {
		return "warn" // logrus says "warning"
	}
	return s.LogLevel.String()
}

// errNoEngine says what addresses of an engine look like.
var errNoEngine = errors.New("allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT")

// setDockerHost checks the form alone; the engine package knows the rest.
func (s *Settings) setDockerHost(value string) error {
	if value == "" {
		s.DockerHost = ""
		return nil
	}
	scheme, address, _ := strings.Cut(value, "://")
	if address == "" || !slices.Contains([]string{"unix", "tcp", "http", "https"}, scheme) {
		return errNoEngine
	}
	parsed, err := url.Parse("tcp://" + address)
	if scheme != "unix" && (err != nil || parsed.Hostname() == "" || parsed.Port() == "") {
		return fmt.Errorf("%w (the usual ports are 2375, and 2376 with TLS)", errNoEngine)
	}
	s.DockerHost = value
	return nil
}

func (s *Settings) setHostName(value string) error {
	// It stands in each line of output.
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(value) > 253 {
		return fmt.Errorf("allowed are up to 253 bytes without blanks and control characters")
	}
	s.HostName = value
	return nil
}

// maxSocketName is the space for a socket's name in struct sockaddr_un, less
// one byte: the zero that ends a path, or begins an abstract name.
// Source: unix(7).
const maxSocketName = 107

func (s *Settings) setHealthSocket(value string) error {
	name, abstract := strings.CutPrefix(value, "@")
	valid := value == "" || abstract && name != "" || path.IsAbs(value)
	if !valid || len(name) > maxSocketName || strings.ContainsRune(value, 0) {
		return fmt.Errorf("allowed are an absolute path and @name, each up to %d bytes, and empty for none", maxSocketName)
	}
	s.HealthSocket = value
	return nil
}

// Bounds of the burst limit and of the receive buffers.
const (
	maxBurstLimit     = 1_000_000
	minReceiveBuffers = 4 << 20
	maxReceiveBuffers = 64 << 30
)

func (s *Settings) setBurstLimit(value string) error {
	count, err := strconv.Atoi(value)
	if err != nil || count < 0 || count > maxBurstLimit {
		return fmt.Errorf("allowed are 0 (no limit) to %d", maxBurstLimit)
	}
	s.BurstLimit = count
	return nil
}

func (s *Settings) setReceiveBuffers(value string) error {
	size, ok := parseSize(value)
	if !ok || size < minReceiveBuffers || size > maxReceiveBuffers {
		return fmt.Errorf("allowed are 4MiB to 64GiB: bytes, or with kB, MB, GB, TB, KiB, MiB, GiB, TiB")
	}
	s.ReceiveBuffers = int64(size)
	return nil
}
