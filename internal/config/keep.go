package config

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/when"
)

const (
	// DefaultFile is read where it exists and no other file is named.
	DefaultFile = "/etc/portwatcher/config.yaml"
	// StateMemory is the value of Settings.State that keeps the journal in
	// memory.
	StateMemory = "memory"
	// stateName is the database's name where the state is a folder.
	stateName = "portwatcher.db"
)

func (s *Settings) setConfigFile(value string) error {
	if strings.ContainsRune(value, 0) {
		return fmt.Errorf("allowed is the path of a file, and empty for none")
	}
	s.ConfigFile = value
	if value != "" {
		s.ConfigFile = filepath.Clean(value)
	}
	return nil
}

// setState takes an absolute path, so that a misspelt word is no file in the
// working folder.
func (s *Settings) setState(value string) error {
	if value == StateMemory {
		s.State = value
		return nil
	}
	if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
		return fmt.Errorf("allowed are an absolute path and the word %s", StateMemory)
	}
	s.State = path.Clean(value)
	if info, err := os.Stat(s.State); strings.HasSuffix(value, "/") || err == nil && info.IsDir() {
		s.State = path.Join(s.State, stateName)
	}
	return nil
}

// setSnapshotPath takes the path as the shell tool knows it. That tool's own
// file (JSON) is neither read nor touched: the database stands beside it.
func (s *Settings) setSnapshotPath(value string) error {
	if name, found := strings.CutSuffix(value, ".json"); found {
		value = name + ".db"
	}
	return s.setState(value)
}

// Bounds of what the journal keeps.
const (
	day           = when.Day
	minRetain     = time.Hour
	maxRetain     = 3650 * day
	minRetainSize = 1e6
	maxRetainSize = 1e15
)

func (s *Settings) setRetain(value string) error {
	age, err := when.ParseDuration(value)
	if err != nil || age != 0 && (age < minRetain || age > maxRetain) {
		return fmt.Errorf("allowed are 0 (for ever) and 1h to 3650d, with units as in 36h, 30d and 2w")
	}
	s.Retain = age
	return nil
}

// age writes a duration as [when.ParseDuration] reads it, in days where it is whole days.
func age(d time.Duration) string {
	if d == 0 || d%day != 0 {
		return short(d)
	}
	return strconv.FormatInt(int64(d/day), 10) + "d"
}

// sizes matches a number of bytes; the unit is in lower case.
var sizes = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(b|kb|mb|gb|tb|kib|mib|gib|tib)?$`)

// sizeUnits are the units and their factors, the largest first.
var sizeUnits = []struct {
	name   string
	factor int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

func (s *Settings) setRetainSize(value string) error {
	size, ok := parseSize(value)
	if !ok || size != 0 && (size < minRetainSize || size > maxRetainSize) {
		return fmt.Errorf("allowed are 0 (unlimited) and 1MB to 1000TB: bytes, or with kB, MB, GB, TB, KiB, MiB, GiB, TiB")
	}
	s.RetainSize = int64(math.Round(size))
	return nil
}

// parseSize reads a number of bytes, with a unit or without.
func parseSize(value string) (size float64, ok bool) {
	match := sizes.FindStringSubmatch(strings.ToLower(value))
	if match != nil {
		// A number too large for a float64 is infinite, and beyond the bounds.
		size, _ = strconv.ParseFloat(match[1], 64)
		for _, unit := range sizeUnits {
			if strings.EqualFold(unit.name, match[2]) {
				size *= float64(unit.factor)
			}
		}
	}
	return size, match != nil
}

// size writes a number of bytes in the largest unit that it is a multiple of.
func size(bytes int64) string {
	for _, unit := range sizeUnits {
		if bytes != 0 && unit.factor > 1 && bytes%unit.factor == 0 {
			return strconv.FormatInt(bytes/unit.factor, 10) + unit.name
		}
	}
	return strconv.FormatInt(bytes, 10)
}
