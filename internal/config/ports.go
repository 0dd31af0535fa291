package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Ports is a set of port numbers. The zero value is the set of all.
type Ports struct {
	ranges [][2]uint16 // first and last
}

// ParsePorts reads port numbers and ranges (8000-8100), separated by commas or
// blanks. Empty text means all ports. The error names the entry that is wrong.
func ParsePorts(text string) (Ports, error) {
	var p Ports
	for _, word := range strings.FieldsFunc(text, isSeparator) {
		low, high, isRange := strings.Cut(word, "-")
		first, err := parsePort(low)
		last := first
		if err == nil && isRange {
			last, err = parsePort(high)
		}
		if err != nil || first > last {
			return Ports{}, fmt.Errorf("%q: allowed are ports from 1 to 65535 and ranges such as 8000-8100, separated by commas or blanks", word)
		}
		p.ranges = append(p.ranges, [2]uint16{first, last})
	}
	return p, nil
}

func parsePort(text string) (uint16, error) {
	number, err := strconv.ParseUint(text, 10, 16)
	if err == nil && number == 0 {
		err = strconv.ErrRange
	}
	return uint16(number), err
}

// Contains says whether a port is in the set.
func (p Ports) Contains(number uint16) bool {
	for _, r := range p.ranges {
		if number >= r[0] && number <= r[1] {
			return true
		}
	}
	return len(p.ranges) == 0
}
