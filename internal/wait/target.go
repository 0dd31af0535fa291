// Package wait waits until ports of containers are open, for scripts and CI.
//
// It asks an [Instance], which is a running portwatcher or a capture of this process. At a
// timeout the error names what is open instead.
package wait

import (
	"fmt"
	"strconv"
	"strings"

	"portwatcher/internal/model"
)

// Target is a port to wait for.
type Target struct {
	// Container selects containers; see [model.ParseSelection].
	Container string
	Port      uint16
	// Protocol is 0 for any.
	Protocol model.Protocol

	selection model.Selection
}

// ParseTarget reads CONTAINER:PORT or CONTAINER:PORT/PROTOCOL.
func ParseTarget(text string) (Target, error) {
	var t Target
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		return t, targetError(text, "allowed is CONTAINER:PORT or CONTAINER:PORT/PROTOCOL, such as web:80 or shop/db:5432/tcp")
	}
	var err error
	t.Container = text[:at]
	if t.selection, err = model.ParseSelection(t.Container); err != nil {
		return t, targetError(text, err.Error())
	}
	if t.selection.Empty() {
		return t, targetError(text, "allowed before the port are containers in the form of MONITOR_CONTAINERS: names, Compose services, project/service, patterns with * ? [a-z], label:key=value, (host)")
	}
	number, protocol, named := strings.Cut(text[at+1:], "/")
	if named {
		if err := t.Protocol.UnmarshalText([]byte(protocol)); err != nil {
			return t, targetError(text, "allowed protocols are tcp and udp, in lower case")
		}
	}
	parsed, err := strconv.ParseUint(number, 10, 16)
	if err != nil || parsed == 0 {
		return t, targetError(text, "allowed ports are 1 to 65535")
	}
	t.Port = uint16(parsed)
	return t, nil
}

// Host reports whether the target may be one of the host's own ports.
func (t Target) Host() bool { return t.selection.Matches(nil, nil) }

func targetError(text, allowed string) error {
	return fmt.Errorf("port %q: %s", text, allowed)
}

// String returns the form that [ParseTarget] reads.
func (t Target) String() string { return t.Container + ":" + t.port() }

// port returns the port in the form of the API.
func (t Target) port() string {
	if t.Protocol == 0 {
		return strconv.Itoa(int(t.Port))
	}
	return strconv.Itoa(int(t.Port)) + "/" + t.Protocol.String()
}

// filter returns the filter of the target; no exposures means all.
func (t Target) filter(exposures []model.Exposure) *model.Filter {
	return &model.Filter{Containers: t.selection, Exposures: exposures, Ports: model.OnePort(t.Protocol, t.Port)}
}
