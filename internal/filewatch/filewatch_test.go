package filewatch

import (
	"os"
	"path/filepath"
	"testing"
)

// must stops the test for an error of what prepares it.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o600))
}

// expect checks that a change is reported, if there is one, and only once.
func expect(t *testing.T, w *Watch, want bool, what string) {
	t.Helper()
	if got := w.Changed(); got != want {
		t.Errorf("%s: changed is %v, want %v", what, got, want)
	}
	if w.Changed() {
		t.Errorf("%s: changed again", what)
	}
}

func TestChanged(t *testing.T) {
	folder := t.TempDir()
	name, other := filepath.Join(folder, "file"), filepath.Join(folder, "other")
	put(t, name, "a")
	w := New(other, name)
	expect(t, w, false, "nothing")

	put(t, name, "b")
	expect(t, w, true, "written in place, with the same size")
	put(t, name, "b")
	expect(t, w, false, "written with the same content")
	put(t, other+"~", "c")
	must(t, os.Rename(other+"~", name))
	expect(t, w, true, "replaced by renaming")
	must(t, os.Remove(name))
	expect(t, w, true, "deleted")
	put(t, other, "c")
	expect(t, w, true, "another file created")
	must(t, os.Rename(other, name))
	expect(t, w, true, "moved")
	must(t, os.Remove(name))
	must(t, os.Mkdir(name, 0o700))
	expect(t, w, true, "a folder in its place")
	must(t, os.RemoveAll(folder))
	expect(t, w, true, "all deleted")
}

// Kubernetes mounts a ConfigMap as links by way of a folder "..data", and replaces
// that link.
func TestConfigMap(t *testing.T) {
	folder := t.TempDir()
	for _, version := range []string{"1", "2"} {
		must(t, os.Mkdir(filepath.Join(folder, "..v"+version), 0o700))
		put(t, filepath.Join(folder, "..v"+version, "file"), version)
	}
	data, name := filepath.Join(folder, "..data"), filepath.Join(folder, "file")
	must(t, os.Symlink("..v1", data))
	must(t, os.Symlink("..data/file", name))
	w := New(name)
	must(t, os.Symlink("..v2", data+"_tmp"))
	must(t, os.Rename(data+"_tmp", data))
	expect(t, w, true, "link replaced")
}
