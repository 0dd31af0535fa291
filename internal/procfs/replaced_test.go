package procfs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A file whose mount keeps the removed one is found through the root of another process.
func TestReplaced(t *testing.T) {
	const (
		rest  = " rw,relatime shared:1 - tmpfs tmpfs rw\n"
		host  = "22 27 0:21 / /proc" + rest + "23 27 0:25 / /run" + rest
		alike = "24 27 0:25 /other /run/docker" + rest
	)
	for name, test := range map[string]struct {
		source, first, parent, sockets string
		want, problem                  string
	}{
		"is there still":      {"/docker.sock", host, "", "1/root/run/docker.sock", "", ""},
		"made anew":           {"/docker.sock//deleted", host + alike, "", "1/root/run/docker.sock", "1/root/run/docker.sock", ""},
		"not yet":             {"/docker.sock//deleted", host, "", "", "1/root/run/docker.sock", ""},
		"of a mounted folder": {"/my\\040docker/s//deleted", "23 27 0:25 /my\\040docker /srv" + rest, "", "", "1/root/srv/s", ""},
		"by the parent":       {"/docker.sock//deleted", "23 27 0:26 / /run" + rest, host, "", "parent/root/run/docker.sock", ""},
		"not mounted":         {"/docker.sock//deleted", "23 27 0:26 / /run" + rest, alike, "", "", "not mounted"},
		"unreadable":          {"/docker.sock//deleted", "", "", "", "", "mountinfo"},
	} {
		t.Run(name, func(t *testing.T) {
			root, mounted := t.TempDir(), filepath.Join(t.TempDir(), "docker.sock")
			parent := strconv.Itoa(os.Getppid())
			write := func(path, text string) {
				t.Helper()
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(mounted, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			write("self/mountinfo", host+"30 29 0:25 "+test.source+" "+mounted+rest)
			for process, mounts := range map[string]string{"1": test.first, parent: test.parent} {
				if mounts != "" {
					write(process+"/mountinfo", mounts)
				}
			}
			if test.sockets != "" {
				write(test.sockets, "")
			}
			want := strings.Replace(test.want, "parent/", parent+"/", 1)
			if want != "" {
				want = filepath.Join(root, want)
			}
			got, err := Replaced(root, mounted)
			if got != want || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Errorf("got %q, %v; want %q, %q", got, err, want, test.problem)
			}
			if got, err := Replaced(root, filepath.Dir(mounted)); got != "" || err != nil {
				t.Errorf("what is no mount: got %q, %v", got, err)
			}
		})
	}
}
