package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The sources of portwatcher that are compared, as --source takes them.
const (
	sourceEBPF    = "ebpf"
	sourceNetlink = "netlink"
)

var sources = []string{sourceEBPF, sourceNetlink}

// binaries are the paths of what is measured and of what runs in containers.
type binaries struct{ portwatcher, workload, connections string }

// A stage is what a theme needs of a real engine: containers, and the
// portwatcher that is told to monitor them.
type stage struct {
	*fleet
	portwatcher string
}

// watch starts portwatcher with a source; the caller stops it.
func (s *stage) watch(ctx context.Context, source string) (*watcher, error) {
	return startWatcher(ctx, s.portwatcher, source, s.fleet)
}

// exec runs the workload in the first container and returns its output.
func (s *stage) exec(ctx context.Context, workload ...string) (string, error) {
	return docker(ctx, nil, append([]string{"exec", s.ids[0], "/workload"}, workload...)...)
}

// onStage calls measure with running containers, and removes them. A theme
// that has no engine is recorded as missing.
func onStage(ctx context.Context, s *settings, r *report, f *fleet, measure func(*stage) error) (err error) {
	if reason := noEngine(ctx); reason != "" {
		r.missing(f.theme, reason)
		return nil
	}
	folder, err := os.MkdirTemp("", "portwatcher-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	built, err := buildBinaries(ctx, s.portwatcher, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.remove()) }()
	if err := f.start(ctx, built.workload, built.connections); err != nil {
		return err
	}
	return measure(&stage{f, built.portwatcher})
}

// buildBinaries builds into folder, each with the versions of its own module.
// A given path is taken instead of a portwatcher of its own.
func buildBinaries(ctx context.Context, given, folder string) (b binaries, err error) {
	for _, target := range []struct {
		module, pkg string
		path        *string
	}{
		{"portwatcher", "./cmd/portwatcher", &b.portwatcher},
		{"portwatcher", "./integration/workload", &b.workload},
		{"portwatcher/integration/bench", "./connections", &b.connections},
	} {
		if *target.path = given; given != "" && target.path == &b.portwatcher {
			continue
		}
		*target.path = filepath.Join(folder, filepath.Base(target.pkg))
		if err := build(ctx, target.module, target.pkg, *target.path); err != nil {
			return b, err
		}
	}
	return b, nil
}

func build(ctx context.Context, module, pkg, path string) error {
	progress("go build %s of %s", pkg, module)
	folder, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find the module %s (run this in integration/bench): %w", module, err)
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, pkg)
	command.Dir, command.Env = strings.TrimSpace(string(folder)), append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, output)
	}
	return nil
}
