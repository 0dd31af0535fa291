package docker

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Processes returns the folders in /proc of a container's processes. Container is its
// id, which is in the path of its cgroup.
func Processes(container string) (folders []string, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range files {
		cgroup, err := os.ReadFile(file)
		if err == nil && bytes.Contains(cgroup, []byte(container)) { // else it is another's, or has ended
			folders = append(folders, filepath.Dir(file))
		}
	}
	return folders, err
}

// Held is what a process keeps from the kernel.
type Held struct {
	Descriptors int
	Targets     []string // what the descriptors are open on, as /proc shows it
	Threads     int
	// Namespaces are the network namespaces other than its own that its descriptors keep
	// alive: open namespace files, and sockets in them.
	Namespaces []string
}

// Holding reads what a process holds. Sockets do not show their namespace in /proc: a copy
// of each is asked for it.
func Holding(pid int) (*Held, error) {
	folder := "/proc/" + strconv.Itoa(pid)
	own, err := os.Readlink(folder + "/ns/net")
	if err != nil {
		return nil, fmt.Errorf("read what process %d holds: %w", pid, err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(process)
	descriptors, _ := filepath.Glob(folder + "/fd/*") // the pattern is valid
	threads, _ := filepath.Glob(folder + "/task/*")
	held := &Held{Descriptors: len(descriptors), Threads: len(threads)}
	for _, descriptor := range descriptors {
		target, err := os.Readlink(descriptor)
		if err != nil {
			continue // it is closed since
		}
		held.Targets = append(held.Targets, target)
		if strings.HasPrefix(target, "socket:") {
			number, _ := strconv.Atoi(filepath.Base(descriptor))
			if target, err = socketNamespace(process, number); err != nil {
				continue // it is closed since
			}
		}
		if strings.HasPrefix(target, "net:") && target != own && !slices.Contains(held.Namespaces, target) {
			held.Namespaces = append(held.Namespaces, target)
		}
	}
	return held, nil
}

// socketNamespace returns the network namespace, "net:[4026531840]", of a socket of
// another process.
func socketNamespace(process, descriptor int) (string, error) {
	socket, err := unix.PidfdGetfd(process, descriptor, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(socket)
	namespace, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return "", err
	}
	defer unix.Close(namespace)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", namespace))
}

// Busy starts so many loops that take processor time, each at most 10 minutes of it, until
// end is called. Groups are their process groups.
func Busy(loops int) (groups []int, end func(), err error) {
	var running []*exec.Cmd
	end = func() {
		for _, loop := range running {
			_ = loop.Process.Kill()
			_ = loop.Wait() // it reports the kill
		}
	}
	for range loops {
		loop := exec.Command("sh", "-c", "ulimit -t 600; while :; do :; done")
		loop.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := loop.Start(); err != nil {
			end()
			return nil, nil, err
		}
		running, groups = append(running, loop), append(groups, loop.Process.Pid)
	}
	return groups, end, nil
}
