package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Replaced returns another path of the file that is mounted at path, for use where that
// was removed from its folder and made anew: a mount of a file keeps the old one. The
// path leads through the root of a process outside of this container: pid 1, or the
// parent, which is the one that the engine runs beside each container. It is "" where
// path is no mount, or its file is in its folder still. The error is that of the search; a
// file that is missing is none.
func Replaced(procRoot, path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", nil
	}
	own, err := readMounts(filepath.Join(procRoot, "self"))
	if err != nil {
		return "", err
	}
	var mounted *mount
	for i := range own {
		if own[i].target == resolved {
			mounted = &own[i] // the last is on top
		}
	}
	if mounted == nil {
		return "", nil
	}
	file, removed := strings.CutSuffix(mounted.source, removedMark)
	if !removed {
		return "", nil
	}
	through := func(pid int) (string, error) {
		return pathOf(filepath.Join(procRoot, strconv.Itoa(pid)), mounted.device, file)
	}
	found, failed := through(1)
	if failed == nil {
		return found, nil
	}
	// The parent of a process that docker exec starts ends soon after, and another one takes
	// its place.
	for tries := 0; ; tries++ {
		parent := os.Getppid()
		found, err := through(parent)
		if err == nil {
			return found, nil
		}
		if tries == maxParents || os.Getppid() == parent && !errors.Is(err, syscall.EINVAL) {
			return "", fmt.Errorf("find the new file %s: %w; %w", file, failed, err)
		}
		time.Sleep(parentPause)
	}
}

// Bounds on the wait for the next parent: the mounts of one that ends cannot be read (EINVAL)
// for a moment before there is another.
const (
	maxParents  = 50
	parentPause = 10 * time.Millisecond
)

// removedMark is what the kernel adds to the source of a mount that was removed.
const removedMark = "//deleted"

// mount is a line of /proc/<pid>/mountinfo.
type mount struct {
	device string // of the file system
	source string // the mounted file or folder, in the file system
	target string // where it is mounted
}

// readMounts reads the mounts of a process. Source: proc_pid_mountinfo(5).
func readMounts(folder string) ([]mount, error) {
	text, err := os.ReadFile(filepath.Join(folder, "mountinfo"))
	if err != nil {
		return nil, err
	}
	var mounts []mount
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			mounts = append(mounts, mount{fields[2], unescape(fields[3]), unescape(fields[4])})
		}
	}
	return mounts, nil
}

// unescape resolves the kernel's escapes of blanks and the like.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\043`, "#", `\134`, `\`).Replace

// pathOf returns the path of a file of a file system through the root of a process, which
// must have mounted it.
func pathOf(process, device, file string) (string, error) {
	mounts, err := readMounts(process)
	if err != nil {
		return "", err
	}
	err = fmt.Errorf("its file system is not mounted in %s/root", process)
	for i := len(mounts) - 1; i >= 0; i-- { // the last is on top
		inside, within := strings.CutPrefix(file, strings.TrimSuffix(mounts[i].source, "/"))
		if mounts[i].device != device || !within || !strings.HasPrefix(inside, "/") {
			continue
		}
		path := filepath.Join(process, "root", mounts[i].target, inside)
		_, statErr := os.Lstat(path)
		if statErr == nil || errors.Is(statErr, os.ErrNotExist) {
			return path, nil
		}
		err = statErr
	}
	return "", err
}
