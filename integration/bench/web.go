package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"portwatcher/internal/testutil/browser"
)

const (
	webContainers = 100
	webPorts      = 30 // of each: 3,000 in all

	// listenVariable is the setting of the server's address.
	listenVariable = "PORTWATCHER_LISTEN"
)

// webNumbers are what runWeb measures.
type webNumbers struct {
	browser []browserDelays
	loads   []load
	streams []streamRun
	output  outputDelays
}

// runWeb measures what is served: how late an event is in a browser, how fast
// the API and the metrics answer, what many readers of the event stream cost,
// and what all this adds to the way to standard output.
func runWeb(ctx context.Context, s *settings, r *report) error {
	if reason := noEngine(ctx); reason != "" {
		r.missing("web", reason)
		return nil
	}
	n := &webNumbers{}
	part := func(name string, measure func() error) error {
		progress("web: %s", name)
		err := measure()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.missing("web, "+name, err.Error())
		}
		return nil
	}
	err := onStage(ctx, s, r, newFleet("web", 1, 1, "bridge"), func(st *stage) error {
		return errors.Join(
			part("the browser beside one container", func() error { return n.measureBrowser(ctx, st, "one container") }),
			part("standard output", func() error { return n.output.measure(ctx, st) }),
			part("the stream without readers", func() error { return n.measureStream(ctx, st, 0, 0) }),
			part("the stream with readers", func() error { return n.measureStream(ctx, st, streamFast, streamSlow) }),
		)
	})
	if err != nil {
		return err
	}
	err = onStage(ctx, s, r, newFleet("web", webContainers, webPorts, "none"), func(st *stage) error {
		fleet := fmt.Sprintf("%d containers, %s ports", st.containers, grouped(int64(st.endpoints())))
		return errors.Join(
			part("the API", func() error { return n.measureLoads(ctx, st) }),
			part("the browser beside "+fleet, func() error { return n.measureBrowser(ctx, st, fleet) }),
		)
	})
	n.report(r)
	return err
}

// serve starts portwatcher with its server at an address of the loopback, or
// without a server. The caller stops it.
func serve(ctx context.Context, st *stage, source string, server bool) (w *watcher, address string, err error) {
	if server {
		if address, err = freeAddress(); err != nil {
			return nil, "", err
		}
	}
	// By the environment, which every portwatcher of this program inherits: the
	// flags are the same in all themes.
	before, was := os.LookupEnv(listenVariable)
	if err := os.Setenv(listenVariable, address); err != nil {
		return nil, "", err
	}
	defer func() {
		restore := os.Unsetenv(listenVariable)
		if was {
			restore = os.Setenv(listenVariable, before)
		}
		err = errors.Join(err, restore)
	}()
	// The list is complete after the server has taken its address.
	w, err = st.watch(ctx, source)
	return w, address, err
}

// freeAddress returns an address of the loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// startBrowser starts a Chromium, which it installs on Debian where it is
// missing. The caller closes it.
func startBrowser(ctx context.Context) (*browser.Browser, error) {
	path, err := browser.Path()
	if err != nil {
		if path, err = command(ctx, browser.Package, browser.Package); err != nil {
			return nil, err
		}
	}
	return browser.Start(path)
}
