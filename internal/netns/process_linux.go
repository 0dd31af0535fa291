package netns

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Through calls read with the folder of process pid below procRoot, and returns its
// error. Where the main thread of a process has exited, that folder shows neither the
// namespaces and files nor the program of the threads that live on: where read returns an
// error that wraps [ErrProcessGone], Through calls it with the folder of each other thread,
// until one of them returns nil or another error.
func Through(procRoot string, pid int, read func(folder string) error) error {
	folder := filepath.Join(procRoot, strconv.Itoa(pid))
	err := read(folder)
	if !errors.Is(err, ErrProcessGone) {
		return err
	}
	for _, thread := range otherThreads(folder) {
		if other := read(thread); !errors.Is(other, ErrProcessGone) {
			return other
		}
	}
	return err
}

// otherThreads returns the folders of the threads of a process, but for the main thread.
func otherThreads(folder string) []string {
	tasks := filepath.Join(folder, "task")
	// A folder has a link for each thread, and two for itself: one system call excludes a
	// process with one thread, as all of the kernel's are.
	var st unix.Stat_t
	if unix.Stat(tasks, &st) != nil || st.Nlink == 3 {
		return nil
	}
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return nil // the process has ended
	}
	var others []string
	for _, entry := range entries {
		if entry.Name() != filepath.Base(folder) {
			others = append(others, filepath.Join(tasks, entry.Name()))
		}
	}
	return others
}
