package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

const (
	// findEvery is the time between two searches for the container of this process, and findFor
	// the time after which they end.
	findEvery = 200 * time.Millisecond
	findFor   = time.Minute
)

// announce logs the address, and who can read from it. It may have to wait until the containers
// are known.
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
	if s.options.Namespace == (model.Namespace{}) {
		s.warnOpen(at, fmt.Sprintf("; --listen 127.0.0.1:%d serves this host alone", at.Port()))
		return
	}
	published, found := s.awaitPublished(ctx, at.Port())
	switch {
	case ctx.Err() != nil:
	case !found:
		s.warnOpen(at, "")
	default:
		s.announcePublished(scheme, at.Port(), published)
	}
}

// warnOpen warns of an address that everybody may be able to reach.
func (s *Server) warnOpen(at netip.AddrPort, other string) {
	if s.token == nil {
		s.log.Warnf("Everybody who reaches %s can read what listens here: --token-file requires a token%s.", at, other)
	}
}

func (s *Server) announcePublished(scheme string, number uint16, published []netip.AddrPort) {
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

// awaitPublished waits until this process's container is known, and returns the addresses of
// the host that forward to a port of its namespace. found is false where the process is in no
// container, or in the host's namespace.
func (s *Server) awaitPublished(ctx context.Context, number uint16) (published []netip.AddrPort, found bool) {
	ctx, cancel := context.WithTimeout(ctx, findFor)
	defer cancel()
	for {
		complete := s.capture.Ready() == nil // before the view, so that the view has all containers
		if published, found = publishedFor(s.capture.View().Containers, s.options.Namespace, number); found || complete {
			return published, found
		}
		if !clock.Sleep(ctx, findEvery) {
			return nil, false
		}
	}
}

// publishedFor returns the addresses of the host that forward to a TCP port of a namespace.
// found is false where no container has the namespace, or it is the host's.
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
