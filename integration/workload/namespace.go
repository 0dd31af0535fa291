package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// runOwnNamespace puts another command of the workload into a network namespace of its own,
// with its loopback interface up. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
func runOwnNamespace(_ context.Context, args []string, _ *recorder) error {
	if len(args) == 0 {
		return usagef("no command: give one of the others, with its flags")
	}
	runtime.LockOSThread() // exec makes this thread the process
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring the loopback interface up: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's path: %w", err)
	}
	return fmt.Errorf("execute %s: %w", self, syscall.Exec(self, append([]string{self}, args...), os.Environ()))
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
