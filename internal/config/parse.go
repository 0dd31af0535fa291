package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portwatcher/internal/model"
	"portwatcher/internal/when"

	units "github.com/docker/go-units"
	"github.com/sirupsen/logrus"
)

// value is a value of a setting before it is checked. Its fields are exported because
// koanf copies values by reflection.
type value struct {
	Text string
	// Source is "flag", "environment", "file" or "default", and Name the name of the
	// flag or of the variable, or the line of the file.
	Source, Name string
}

// origin returns where the value came from, for people.
func (v value) origin() string { return strings.TrimSpace(v.Source + " " + v.Name) }

// set checks a value and stores it in the settings. The error states what is allowed.
func (s *setting) set(settings *Settings, v value) error {
	text, err := v.Text, error(nil)
	if s.short != "" && v.Name == s.short {
		text, err = s.fromShort(text)
	}
	if err != nil {
		return err
	}
	parsed, err := s.parse(text)
	if err != nil {
		return err
	}
	// What cannot be shown in one line or written to the file is refused.
	if !utf8.ValidString(text) {
		return errors.New("allowed is text in UTF-8")
	}
	if !s.list && strings.ContainsFunc(text, unicode.IsControl) {
		return errors.New("allowed is text without control characters")
	}
	field := reflect.ValueOf(settings).Elem().Field(s.field)
	field.Set(reflect.ValueOf(parsed).Convert(field.Type()))
	return nil
}

// parse converts a text to the type of the field, or a number to int64, and checks it.
func (s *setting) parse(text string) (any, error) {
	switch s.kind {
	case "":
		return parseSwitch(text)
	case "count", "size", "duration", "age":
		return s.number(text)
	case "level":
		if text = strings.ToLower(text); text == "warning" { // the form of logrus
			text = "warn"
		}
	}
	if s.allowed != "" && !slices.Contains(strings.Split(s.allowed, ", "), text) {
		return nil, errors.New("allowed are " + s.allowed)
	}
	switch s.name {
	case LogLevel:
		return logrus.ParseLevel(text)
	case MonitorContainers:
		return model.ParseSelection(text)
	case WatchPorts:
		return model.ParsePorts(text)
	case AllowedHosts:
		return parseHosts(text)
	}
	if check, found := checks[s.name]; found {
		return check(text)
	}
	return text, nil
}

// parseSwitch converts the words for on and off.
func parseSwitch(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no":
		return false, nil
	}
	return false, errors.New("allowed are true, 1, yes, false, 0, no")
}

// forms describe how numbers with units are written.
var forms = map[string]string{
	"duration": ", with a unit as in 500ms or 2s",
	"age":      ", with units as in 36h, 30d and 2w",
	"size":     ": bytes, or with kB, MB, GB, TB, KiB, MiB, GiB, TiB",
}

// number converts a count, nanoseconds or bytes, and checks the bounds.
func (s *setting) number(text string) (int64, error) {
	number, err := s.quantity(text)
	low, high := s.bounds()
	if err == nil && (number >= low && number <= high || number == 0 && s.zero != "") {
		return number, nil
	}
	allowed := "allowed are "
	if s.zero != "" {
		allowed += "0 (" + s.zero + ") and "
	}
	allowed += s.low + " to " + s.high
	if err != nil || s.kind != "duration" {
		allowed += forms[s.kind]
	}
	return 0, errors.New(allowed)
}

func (s *setting) quantity(text string) (int64, error) {
	switch s.kind {
	case "duration":
		duration, err := time.ParseDuration(text)
		return int64(duration), err
	case "age":
		age, err := when.ParseDuration(text)
		return int64(age), err
	case "size":
		if strings.HasSuffix(strings.ToLower(text), "ib") {
			return units.RAMInBytes(text)
		}
		return units.FromHumanSize(text)
	}
	return strconv.ParseInt(text, 10, 64)
}

// bounds returns the bounds of a number. It panics if the tags are wrong.
func (s *setting) bounds() (low, high int64) {
	low, lowErr := s.quantity(s.low)
	high, highErr := s.quantity(s.high)
	if err := errors.Join(lowErr, highErr); err != nil {
		panic(fmt.Sprintf("config: bounds of %s: %v", s.name, err))
	}
	return low, high
}

// fromShort converts the value of the short variable to the form of the flag. It
// returns "" for a value that leaves the setting as it is.
func (s *setting) fromShort(text string) (string, error) {
	switch s.name {
	case Source: // USE_PROC
		proc, err := parseSwitch(text)
		if err != nil || !proc {
			return "", err
		}
		return "proc", nil
	case State:
		// The shell tool's own file (JSON) is neither read nor changed: the database
		// is created beside it.
		if name, found := strings.CutSuffix(text, ".json"); found {
			return name + ".db", nil
		}
		return text, nil
	}
	unit := map[string]time.Duration{"seconds": time.Second, "milliseconds": time.Millisecond}[s.unit]
	if unit == 0 {
		return text, nil
	}
	low, high := s.bounds()
	lowest, highest := float64(low)/float64(unit), float64(high)/float64(unit)
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(number) || number < lowest || number > highest {
		return "", fmt.Errorf("allowed are %s to %s (%s)",
			strconv.FormatFloat(lowest, 'f', -1, 64), strconv.FormatFloat(highest, 'f', -1, 64), s.unit)
	}
	return time.Duration(math.Round(number * float64(unit))).String(), nil
}

// text returns the value in a form that parse accepts.
func (s *setting) text(settings *Settings) string {
	switch v := reflect.ValueOf(settings).Elem().Field(s.field).Interface().(type) {
	case int64:
		return formatSize(v)
	case time.Duration:
		if s.kind == "age" && v != 0 && v%when.Day == 0 {
			return strconv.FormatInt(int64(v/when.Day), 10) + "d"
		}
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	case logrus.Level:
		if v == logrus.WarnLevel {
			return "warn"
		}
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

// formatDuration writes a duration without zero parts: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// formatSize writes a number of bytes exactly, in the largest unit of which it is a
// multiple; the library's functions round.
func formatSize(bytes int64) string {
	for _, unit := range []struct {
		name   string
		factor int64
	}{
		{"TiB", units.TiB}, {"TB", units.TB}, {"GiB", units.GiB}, {"GB", units.GB},
		{"MiB", units.MiB}, {"MB", units.MB}, {"KiB", units.KiB}, {"kB", units.KB},
	} {
		if bytes != 0 && bytes%unit.factor == 0 {
			return strconv.FormatInt(bytes/unit.factor, 10) + unit.name
		}
	}
	return strconv.FormatInt(bytes, 10)
}
