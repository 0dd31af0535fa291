package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"portwatcher/internal/model"
)

// Rules are a set of ports, each of one protocol or of both. The zero value is
// the empty set. It is immutable.
type Rules struct {
	ranges []portRange
}

// portRange are the ports from first to last; protocol 0 means both.
type portRange struct {
	first, last uint16
	protocol    model.Protocol
}

// ParseRules reads ports and ranges (8000-8100), each with /tcp or /udp behind
// it or for both, separated by commas or blanks. The error names the entry that
// is wrong.
func ParseRules(text string) (Rules, error) {
	var rules Rules
	for _, word := range strings.FieldsFunc(text, isSeparator) {
		r, err := parseRange(word)
		if err != nil {
			return Rules{}, &entryError{word, err}
		}
		rules.ranges = append(rules.ranges, r)
	}
	return rules, nil
}

// errNoPorts says what ports and ranges look like.
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
	var known bool
	if r.first, known = parsePort(low); !known {
		return r, errNoPorts
	}
	if r.last, known = parsePort(high); !known {
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

// Each calls f for each range, with protocol 0 for both.
func (r Rules) Each(f func(first, last uint16, protocol model.Protocol)) {
	for _, one := range r.ranges {
		f(one.first, one.last, one.protocol)
	}
}

// Contains says whether a port is in the set.
func (r Rules) Contains(protocol model.Protocol, number uint16) bool {
	for _, one := range r.ranges {
		if number >= one.first && number <= one.last && (one.protocol == 0 || one.protocol == protocol) {
			return true
		}
	}
	return false
}

// String returns the form that [ParseRules] reads.
func (r Rules) String() string {
	words := make([]string, len(r.ranges))
	for i, one := range r.ranges {
		words[i] = strconv.Itoa(int(one.first))
		if one.last != one.first {
			words[i] += "-" + strconv.Itoa(int(one.last))
		}
		if one.protocol != 0 {
			words[i] += "/" + one.protocol.String()
		}
	}
	return strings.Join(words, ",")
}

// Ports are the ports to report: those of its rules, or all where there is
// none, as in the zero value.
type Ports struct {
	rules Rules
}

// ParsePorts reads what [ParseRules] reads. Empty text means all ports.
func ParsePorts(text string) (Ports, error) {
	rules, err := ParseRules(text)
	return Ports{rules}, err
}

// Contains says whether a port is to be reported.
func (p Ports) Contains(protocol model.Protocol, number uint16) bool {
	return len(p.rules.ranges) == 0 || p.rules.Contains(protocol, number)
}

// String returns the form that [ParsePorts] reads.
func (p Ports) String() string { return p.rules.String() }
