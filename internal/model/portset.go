package model

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortSet is a set of ports, each of one protocol or of any. The zero value is the
// empty set. It is immutable.
type PortSet struct {
	ranges []portRange
}

// portRange are the ports from first to last; protocol 0 means any.
type portRange struct {
	first, last uint16
	protocol    Protocol
}

// ParsePorts reads ports and ranges (8000-8100), each with /tcp or /udp behind it or for
// both, separated by commas or blanks. The error is an [*EntryError].
func ParsePorts(text string) (PortSet, error) {
	var set PortSet
	for _, word := range Words(text) {
		r, err := parseRange(word)
		if err != nil {
			return PortSet{}, &EntryError{word, err}
		}
		set.ranges = append(set.ranges, r)
	}
	return set, nil
}

// OnePort returns the set of one port, of one protocol, or of any with 0.
func OnePort(protocol Protocol, number uint16) PortSet {
	return PortSet{[]portRange{{number, number, protocol}}}
}

var errNoPorts = errors.New("allowed are ports from 1 to 65535 and ranges such as 8000-8100, each with /tcp, /udp or neither, separated by commas or blanks")

func parseRange(word string) (r portRange, err error) {
	numbers, protocol, limited := strings.Cut(word, "/")
	if limited && r.protocol.UnmarshalText([]byte(protocol)) != nil {
		return r, errNoPorts
	}
	low, high, isRange := strings.Cut(numbers, "-")
	if !isRange {
		high = low
	}
	var ok bool
	if r.first, ok = parsePort(low); !ok {
		return r, errNoPorts
	}
	if r.last, ok = parsePort(high); !ok {
		return r, errNoPorts
	}
	if r.first > r.last {
		return r, fmt.Errorf("the range is the wrong way round; allowed are ranges from the lower to the higher port, as in %d-%d", r.last, r.first)
	}
	return r, nil
}

func parsePort(text string) (number uint16, ok bool) {
	parsed, err := strconv.ParseUint(text, 10, 16)
	return uint16(parsed), err == nil && parsed != 0
}

// Empty reports whether the set has no port.
func (s PortSet) Empty() bool { return len(s.ranges) == 0 }

// Each calls f for each range, with protocol 0 for any.
func (s PortSet) Each(f func(first, last uint16, protocol Protocol)) {
	for _, r := range s.ranges {
		f(r.first, r.last, r.protocol)
	}
}

// Contains reports whether a port is in the set.
func (s PortSet) Contains(protocol Protocol, number uint16) bool {
	return slices.ContainsFunc(s.ranges, func(r portRange) bool {
		return number >= r.first && number <= r.last && (r.protocol == 0 || r.protocol == protocol)
	})
}

// mayContain is Contains for a port whose protocol or number may be unknown, which is 0:
// each member of the set may be it.
func (s PortSet) mayContain(protocol Protocol, number uint16) bool {
	return slices.ContainsFunc(s.ranges, func(r portRange) bool {
		return (number == 0 || number >= r.first && number <= r.last) && (r.protocol == 0 || protocol == 0 || r.protocol == protocol)
	})
}

// String returns the form that [ParsePorts] reads.
func (s PortSet) String() string {
	words := make([]string, len(s.ranges))
	for i, r := range s.ranges {
		words[i] = strconv.Itoa(int(r.first))
		if r.last != r.first {
			words[i] += "-" + strconv.Itoa(int(r.last))
		}
		if r.protocol != 0 {
			words[i] += "/" + r.protocol.String()
		}
	}
	return strings.Join(words, ",")
}
