package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Cgroup makes a cgroup below parent, or uses the one that a broken run has left there,
// and returns its folder and its id, which is the folder's inode. It ends with the test.
func Cgroup(t testing.TB, parent, name string) (folder string, id uint64) {
	t.Helper()
	folder = filepath.Join(parent, name)
	err := os.Mkdir(folder, 0o755)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		Skip(t, "making a cgroup needs root and a hierarchy that can be written: "+err.Error())
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(folder); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		t.Fatalf("stat %s: %v", folder, err)
	}
	return folder, st.Ino
}
