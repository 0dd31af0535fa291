package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

const (
	// lookEvery is the time between two looks for the container that this process
	// is in, and lookFor how long it is looked for.
	lookEvery = 200 * time.Millisecond
	lookFor   = time.Minute
)

// announce says where the server is and who can read from it. It may have to
// wait until the containers are known.
func (s *Server) announce(ctx context.Context) {
	scheme := "http"
	if s.pair != nil {
		scheme = "https"
	}
	s.log.Infof("Serving the page, the API and metrics on %s://%s.", scheme, s.listener.Addr())
	address, ok := s.listener.Addr().(*net.TCPAddr)
	if !ok || address.IP.IsLoopback() {
		return
	}
	at := address.AddrPort()
	if s.Namespace == (model.Namespace{}) {
		s.warnOpen(at, fmt.Sprintf("; --listen 127.0.0.1:%d serves this host alone", at.Port()))
		return
	}
	published, found := s.awaitPublished(ctx, at.Port())
	switch {
	case ctx.Err() != nil:
	case !found:
		s.warnOpen(at, "")
	default:
		s.tellPublished(scheme, at.Port(), published)
	}
}

// warnOpen warns where nothing is known to stand between the address and whoever
// reaches it.
func (s *Server) warnOpen(at netip.AddrPort, other string) {
	if s.token == nil {
		s.log.Warnf("Everybody who reaches %s can read what listens here: --token-file asks for a token%s.", at, other)
	}
}

// tellPublished says where the port of this process's container can be reached.
func (s *Server) tellPublished(scheme string, number uint16, published []netip.AddrPort) {
	if len(published) == 0 {
		s.log.Infof("Port %d of this container is published nowhere: other containers on its networks reach it.", number)
		return
	}
	var here, everywhere []string
	for _, host := range published {
		if host.Addr().IsLoopback() {
			here = append(here, scheme+"://"+host.String())
		} else {
			everywhere = append(everywhere, host.String())
		}
	}
	if len(everywhere) > 0 && s.token == nil {
		s.log.Warnf("Port %d of this container is published at %s: everybody who reaches that can read what listens here. Publish it at 127.0.0.1 alone, or set --token-file.",
			number, strings.Join(everywhere, ", "))
	}
	if len(here) > 0 {
		s.log.Infof("On this host it is at %s; other containers on its networks reach it too.", strings.Join(here, ", "))
	}
}

// awaitPublished waits until this process's container is known, and returns the
// addresses of the host that forward to a port of its namespace. found is false
// where it is in none, or in the host's namespace.
func (s *Server) awaitPublished(ctx context.Context, number uint16) (published []netip.AddrPort, found bool) {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		known := s.Capture.Ready() == nil // before the look, so that it has all
		if published, found = publishedFor(s.Capture.View().Containers, s.Namespace, number); found || known {
			return published, found
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-again.C:
		}
	}
}

// publishedFor lists the addresses of the host that forward to a TCP port of a
// namespace, and says whether it is a container's, and not the host's.
func publishedFor(containers []model.ContainerState, namespace model.Namespace, number uint16) (published []netip.AddrPort, found bool) {
	for _, c := range containers {
		if c.Namespace != namespace {
			continue
		}
		if c.NetworkMode == "host" {
			return nil, false
		}
		found = true
		for _, p := range c.Ports {
			if p.Protocol == model.TCP && p.Port == number && p.Host.Port() != 0 {
				published = append(published, p.Host)
			}
		}
	}
	slices.SortFunc(published, netip.AddrPort.Compare)
	return slices.Compact(published), found
}
