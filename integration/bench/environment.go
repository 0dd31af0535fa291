package main

import (
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

// command returns the path of a program. make bench installs the Debian packages.
func command(program, debianPackage string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		err = fmt.Errorf("%w; make bench installs it (Debian package %s)", err, debianPackage)
	}
	return path, err
}
