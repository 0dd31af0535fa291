package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeEnvironment returns what a reader needs to judge the numbers.
func describeEnvironment(arguments []string) []field {
	return []field{
		{"Command", "`" + strings.Join(append([]string{"cd integration/bench && go run ."}, arguments...), " ") + "`"},
		{"Date", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		{"Kernel", kernelRelease()},
		{"CPU", fmt.Sprintf("%d × %s", runtime.NumCPU(), cpuModel())},
		{"Memory", memorySize()},
		{"Go", runtime.Version()},
	}
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown: " + err.Error()
	}
	return "Linux " + unix.ByteSliceToString(name.Release[:])
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown: " + err.Error()
	}
	for line := range strings.Lines(string(info)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func memorySize() string {
	kilobytes, err := procField("/proc/meminfo", "MemTotal")
	if err != nil {
		return "unknown: " + err.Error()
	}
	return fmt.Sprintf("%.0f GiB", float64(kilobytes)/(1<<20))
}

// command returns the path of a program. On Debian, as root, it installs the
// program's package where it is missing.
func command(ctx context.Context, program, debianPackage string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	if _, notDebian := os.Stat("/etc/debian_version"); notDebian != nil || os.Geteuid() != 0 {
		return "", fmt.Errorf("%w; install it (Debian package %s)", err, debianPackage)
	}
	progress("installing the Debian package %s for %s", debianPackage, program)
	install := []string{"install", "--yes", "--no-install-recommends", debianPackage}
	if apt(ctx, install...) != nil {
		// The list of packages may be missing or old.
		if err := apt(ctx, "update"); err != nil {
			return "", err
		}
		if err := apt(ctx, install...); err != nil {
			return "", err
		}
	}
	return exec.LookPath(program)
}

func apt(ctx context.Context, arguments ...string) error {
	run := exec.CommandContext(ctx, "apt-get", arguments...)
	run.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if output, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w %s", strings.Join(arguments, " "), err, output)
	}
	return nil
}
