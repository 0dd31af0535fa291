package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Held is what a process keeps from the kernel.
type Held struct {
	Descriptors int
	Targets     []string // what the descriptors are open on, as /proc shows it
	Threads     int
	// Namespaces are the network namespaces other than its own that its
	// descriptors keep alive: open namespace files, and sockets in them.
	Namespaces []string
}

// Holding reads what a process holds. Sockets do not show their namespace in
// /proc: a copy of each is asked for it.
func Holding(t testing.TB, pid int) Held {
	t.Helper()
	directory := "/proc/" + strconv.Itoa(pid)
	own, err := os.Readlink(directory + "/ns/net")
	if err != nil {
		t.Fatalf("read what process %d holds: %v", pid, err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("open process %d: %v", pid, err)
	}
	defer unix.Close(process)
	descriptors, _ := filepath.Glob(directory + "/fd/*")
	threads, _ := filepath.Glob(directory + "/task/*")
	held := Held{Descriptors: len(descriptors), Threads: len(threads)}
	for _, descriptor := range descriptors {
		target, err := os.Readlink(descriptor)
		if err != nil {
			continue // closed since
		}
		held.Targets = append(held.Targets, target)
		if strings.HasPrefix(target, "socket:") {
			number, _ := strconv.Atoi(filepath.Base(descriptor))
			if target, err = socketNamespace(process, number); err != nil {
				continue // closed since
			}
		}
		if strings.HasPrefix(target, "net:") && target != own && !slices.Contains(held.Namespaces, target) {
			held.Namespaces = append(held.Namespaces, target)
		}
	}
	return held
}

// socketNamespace returns the network namespace, "net:[4026531840]", of a
// socket of another process.
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
