// Package wait waits until ports of containers are open, for scripts and CI.
//
// It asks an [Instance], which is a running portwatcher or a capture of this
// process, and gives up at a time; then it tells what is open instead.
package wait

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server"
)

// Target is a port to wait for.
type Target struct {
	// Container is a name, which may have * for any characters; project/service
	// likewise; or the beginning of an id, 12 or more hexadecimal digits.
	Container string
	Port      uint16
	// Protocol is 0 where either counts.
	Protocol model.Protocol
}

// names matches names of containers, projects and services, with *.
// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
var names = regexp.MustCompile(`^[a-zA-Z0-9_.*-]+(/[a-zA-Z0-9_.*-]+)?$`)

// ParseTarget reads CONTAINER:PORT or CONTAINER:PORT/PROTOCOL.
func ParseTarget(text string) (Target, error) {
	var t Target
	at := strings.LastIndexByte(text, ':')
	if at < 0 {
		return t, targetError(text, "allowed is CONTAINER:PORT or CONTAINER:PORT/PROTOCOL, such as web:80 or shop/db:5432/tcp")
	}
	t.Container = text[:at]
	if !names.MatchString(t.Container) {
		return t, targetError(text, "allowed before the port are names of letters, digits, _ . - and * for any, project/service, and ids of 12 to 64 hexadecimal digits")
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

func targetError(text, allowed string) error {
	return fmt.Errorf("port to wait for %q: %s", text, allowed)
}

// String returns the form that [ParseTarget] reads.
func (t Target) String() string { return t.Container + ":" + t.port() }

// port returns the port as the API takes it.
func (t Target) port() string {
	if t.Protocol == 0 {
		return strconv.Itoa(int(t.Port))
	}
	return strconv.Itoa(int(t.Port)) + "/" + t.Protocol.String()
}

// filter selects what is waited for; exposures empty is all.
func (t Target) filter(exposures []model.Exposure) server.Filter {
	return server.Filter{
		Containers: []string{t.Container}, Exposures: exposures,
		Ports: []journal.PortRange{{First: t.Port, Last: t.Port, Protocol: t.Protocol}},
	}
}

// ParseExposure reads an exposure.
func ParseExposure(text string) (model.Exposure, error) {
	switch e := model.Exposure(text); e {
	case model.Loopback, model.Network, model.Published, model.Host:
		return e, nil
	}
	return "", fmt.Errorf("allowed are loopback, network, published, host")
}
