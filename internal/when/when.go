// Package when parses times and durations as people write them in a query or a
// setting. It reads no clock: the caller passes the current time.
package when

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours, also at the change to summer time.
const Day = 24 * time.Hour

// leading matches the days and weeks that a duration may begin with.
var leading = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([dw])`)

// maxDuration is the longest duration that is accepted, in nanoseconds: 100 years.
const maxDuration = 36500 * float64(Day)

// ParseDuration parses a duration of [time.ParseDuration] that is not negative, with
// days and weeks before the other units: "30d", "1w2d12h", "90m".
func ParseDuration(text string) (time.Duration, error) {
	rest, sum := text, 0.0
	for match := leading.FindStringSubmatch(rest); match != nil; match = leading.FindStringSubmatch(rest) {
		number, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			return 0, err
		}
		if match[2] == "w" {
			number *= 7
		}
		sum, rest = sum+number*float64(Day), rest[len(match[0]):]
	}
	if rest == "" && text != "" {
		rest = "0"
	}
	remainder, err := time.ParseDuration(rest)
	if err != nil {
		return 0, err
	}
	if remainder < 0 || sum+float64(remainder) > maxDuration {
		return 0, strconv.ErrRange
	}
	return time.Duration(math.Round(sum)) + remainder, nil
}

// layouts are the forms of a time with its day.
var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly,
}

const allowed = `allowed are a duration back from now (90s, 1h, 7d), a time (2026-11-22T18:36:28Z; without a zone it is local: "2026-11-22 18:36", 2026-11-22), a time of day (18:36) and now`

// Parse parses a duration back from now, a time in RFC 3339, a date with or without a
// time, or a time of day, which is the last one before now. Without a zone the time is in
// the location of now. The error states what is allowed.
func Parse(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	if text == "now" {
		return now, nil
	}
	if back, err := ParseDuration(strings.TrimPrefix(text, "-")); err == nil && text != "0" {
		return now.Add(-back), nil
	}
	for _, layout := range layouts {
		if at, err := time.ParseInLocation(layout, strings.ToUpper(text), now.Location()); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		at, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, nil
	}
	return time.Time{}, errors.New(allowed)
}

// CheckZone checks the environment variable TZ, of which package time takes what it cannot
// use for UTC. The error names what is allowed.
// Source: https://pkg.go.dev/time#Location.
func CheckZone(value string, isSet bool) error {
	name := strings.TrimPrefix(value, ":")
	if !isSet || name == "" {
		return nil
	}
	var err error
	if strings.HasPrefix(name, "/") {
		var content []byte
		if content, err = os.ReadFile(name); err == nil {
			_, err = time.LoadLocationFromTZData(name, content)
		}
	} else if name == "Local" {
		err = errors.New("it has no zone of its own")
	} else {
		_, err = time.LoadLocation(name)
	}
	if err != nil {
		return fmt.Errorf("TZ: %q: allowed are names of the IANA time zone database, such as Europe/Berlin, and UTC: %w", value, err)
	}
	return nil
}
