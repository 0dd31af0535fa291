package attribute

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// folderInode returns the inode of a process's folder: path, below the folder
// root, ends with a zero byte. As long as a process lives its folder is the same
// inode, unless the kernel needs the memory; the inode is then another. The
// function makes its system call itself: the library's functions copy the path.
func folderInode(root int, path []byte) (uint64, error) {
	var st unix.Statx_t
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(root), uintptr(unsafe.Pointer(&path[0])), 0, unix.STATX_INO,
		uintptr(unsafe.Pointer(&st)), 0)
	if errno != 0 {
		return 0, errno
	}
	return st.Ino, nil
}

// gone returns whether an error means that there is no such process.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }
