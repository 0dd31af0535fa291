package journal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile is held as long as a journal is open, beside the database. The
// kernel releases it however the process ends (flock(2)). It also holds the
// reserve of ids, for the case that the database is lost. Nil is that of a journal in
// memory.
type lockFile struct {
	file     *os.File
	path     string
	reserved uint64 // as found; 0: the file was new
}

// lockFormat has a fixed length, so that writing it again needs no space on a
// full disk.
const lockFormat = "pid %10d\nreserved %20d\n"

// acquire takes the lock of the database at path. It fails with a
// [*RefusedError] where another process has it.
func acquire(path string) (*lockFile, error) {
	l := &lockFile{path: path + ".lock"}
	var err error
	if l.file, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return nil, fmt.Errorf("lock the journal: %w", err)
	}
	pid, reserved := l.read()
	l.reserved = reserved
	if err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = inUse(path, pid)
		} else {
			err = fmt.Errorf("lock the journal: flock %s: %w", l.path, err)
		}
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// read returns what the last holder wrote; what is not readable is 0.
func (l *lockFile) read() (pid int, reserved uint64) {
	content := make([]byte, 64)
	n, _ := l.file.ReadAt(content, 0)
	// The database has the same numbers: an unreadable content is no error.
	_, _ = fmt.Sscanf(string(content[:n]), lockFormat, &pid, &reserved)
	return pid, reserved
}

// reserve notes that ids up to last may be used. It is durable on return.
func (l *lockFile) reserve(last uint64) error {
	if l == nil {
		return nil
	}
	if _, err := l.file.WriteAt(fmt.Appendf(nil, lockFormat, os.Getpid(), last), 0); err != nil {
		return fmt.Errorf("reserve ids in %s: %w", l.path, err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("reserve ids in %s: %w", l.path, err)
	}
	return nil
}

func (l *lockFile) close() error {
	if l == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release the journal's lock: %w", err)
	}
	return nil
}
