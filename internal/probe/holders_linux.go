package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// holderSize is the size of struct holder in bpf/holders.bpf.c.
const holderSize = 12

// initialPIDNamespace is the inode of the initial pid namespace,
// PID_NS_INIT_INO in include/uapi/linux/nsfs.h.
const initialPIDNamespace = 0xEFFFFFFC

// HolderFinder finds the processes that hold listening sockets, by one walk of
// the kernel over the open files of all processes: what walking /proc/<pid>/fd
// tells, without a system call for each file. It is safe for concurrent use.
//
// Like every reader of /proc/<pid>/fd the walk holds each file for the moment it
// looks at it: a socket closed in that very moment is freed just after it.
//
// That an inode has no holder here does not prove that it has none: a kernel may
// hide processes from eBPF's walks that it shows in /proc (seen with the init
// process of a virtual machine). What is not found is worth a look there.
type HolderFinder struct {
	mu      sync.Mutex
	objects holdersObjects
	iter    *link.Iter
	buffer  []byte
	closed  bool
}

// OpenHolderFinder loads the program. The error is an *[UnsupportedError] where
// the kernel or this process's rights do not allow it, or where this process is
// not in the host's pid namespace: the walk would miss the others' processes.
func OpenHolderFinder() (*HolderFinder, error) {
	types, err := checkKernel()
	if err != nil {
		return nil, err
	}
	return openHolderFinder(types)
}

func openHolderFinder(types *btf.Cache) (*HolderFinder, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("identify this process's pid namespace: %w", err)
	}
	if st.Ino != initialPIDNamespace {
		return nil, &UnsupportedError{"iter/task_file", "share the host's pid namespace (pid: host)",
			errors.New("this process is not in the host's pid namespace")}
	}
	f := &HolderFinder{buffer: make([]byte, 32<<10)}
	if err := loadHoldersObjects(&f.objects, &ebpf.CollectionOptions{Cache: types}); err != nil {
		return nil, unsupported("iter/task_file", err)
	}
	var err error
	if f.iter, err = link.AttachIter(link.IterOptions{Program: f.objects.Holders}); err != nil {
		return nil, errors.Join(unsupported("iter/task_file", err), f.objects.Close())
	}
	return f, nil
}

// Holders appends to dst the open files that are listening TCP (MPTCP too) or
// unconnected UDP sockets whose inode is among wanted; nil wants all. An MPTCP
// listener has the inode that its TCP socket has in a dump. A process that
// shares its descriptors between threads appears once.
func (f *HolderFinder) Holders(dst []Holder, wanted map[uint32]struct{}) ([]Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return dst, os.ErrClosed
	}
	files, err := f.iter.Open()
	if err != nil {
		return dst, fmt.Errorf("walk the open files of all processes: %w", err)
	}
	dst, err = f.readAll(files, dst, wanted)
	if err != nil {
		err = fmt.Errorf("walk the open files of all processes: %w", err)
	}
	return dst, errors.Join(err, files.Close())
}

func (f *HolderFinder) readAll(files io.Reader, dst []Holder, wanted map[uint32]struct{}) ([]Holder, error) {
	left := 0
	for {
		n, err := files.Read(f.buffer[left:])
		have := f.buffer[:left+n]
		dst, have = appendHolders(dst, have, wanted)
		left = copy(f.buffer, have)
		switch {
		case err == io.EOF && left != 0:
			return dst, malformed("%d bytes after the last holder, want 0", left)
		case err == io.EOF:
			return dst, nil
		case errors.Is(err, unix.EAGAIN):
			// The kernel stops after a great many files that were left out,
			// MAX_ITER_OBJECTS in kernel/bpf/bpf_iter.c: to be called again.
		case err != nil:
			return dst, err
		}
	}
}

// appendHolders decodes the whole records of raw and returns what is left.
func appendHolders(dst []Holder, raw []byte, wanted map[uint32]struct{}) ([]Holder, []byte) {
	for len(raw) >= holderSize {
		h := Holder{
			Inode: binary.NativeEndian.Uint32(raw),
			PID:   int(binary.NativeEndian.Uint32(raw[4:])),
			FD:    int(binary.NativeEndian.Uint32(raw[8:])),
		}
		raw = raw[holderSize:]
		if _, ok := wanted[h.Inode]; ok || wanted == nil {
			dst = append(dst, h)
		}
	}
	return dst, raw
}

// Close releases the program. Later calls do nothing.
func (f *HolderFinder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return errors.Join(f.iter.Close(), f.objects.Close())
}
