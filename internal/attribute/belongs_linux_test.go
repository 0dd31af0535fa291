package attribute

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/testutil/kernel"
)

const (
	ownID   = "c480f8687eb37d740e09719f2da95e72dec2de05677683963bbb8e8997dffce4"
	otherID = "31a9007e007e4f3824b712626044f9691787327e7ea6a8335379788f0acacaaa"
)

// mounted is a /proc/<pid>/mountinfo as a container has it.
func mounted(id string) string {
	return `216 184 0:36 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AAAA
217 216 0:50 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
254 216 254:0 /var/lib/docker/containers/` + id + `/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw,discard
`
}

// onHost is that of the host, where the memory of a running container is mounted.
const onHost = `24 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
90 24 0:50 / /var/lib/docker/containers/` + ownID + `/mounts/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
`

func TestProve(t *testing.T) {
	const rest = " 0 0 0 0 0 0 0 0 20 0 1 0 100 8192 1"
	const stays, ends = "7 (a) S) S 1 7 7 0 -1 4194304" + rest, "7 (a) S) R 1 7 7 0 -1 4194308" + rest
	v1 := func(path string) string {
		return "9:name=systemd:" + path + "\n4:memory:/\n1:cpu,cpuacct:" + path + "\n0::" + path + "\n"
	}
	for _, test := range []struct {
		name, cgroup, mountinfo, stat, mode string
		want                                string // "", "stranger" or "gone"
	}{
		{"v2", "0::/docker/" + ownID + "\n", "", stays, "", ""},
		{"v1 and hybrid", v1("/docker/" + ownID), "", stays, "", ""},
		{"systemd driver", "0::/system.slice/docker-" + ownID + ".scope\n", "", stays, "", ""},
		{"parent of its own", "0::/shop.slice/shop-db.slice/docker-" + ownID + ".scope/init\n", "", stays, "", ""},
		{"Podman", "0::/machine.slice/libpod-" + ownID + ".scope/container\n", "", stays, "", ""},
		{"rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + ownID + ".scope\n", "", stays, "", ""},
		{"nested", "0::/docker/" + otherID + "/docker/" + ownID + "\n", "", stays, "", ""},
		{"private cgroup namespace", "0::/../" + ownID + "\n", "", stays, "", ""},
		{"removed by now", "0::/docker/" + ownID + " (deleted)\n", "", stays, "", ""},
		{"itself in a private cgroup namespace", "0::/\n", mounted(ownID), stays, "", ""},
		{"cgroup driver none", "0::/user.slice/user-1000.slice/session-1.scope\n", mounted(ownID), stays, "", ""},
		{"cgroup driver none, another's network", v1("/user.slice"), mounted(otherID), stays, "container:" + otherID, ""},

		{"root cgroup", "0::/\n", onHost, stays, "host", "stranger"},
		{"a user's process", v1("/user.slice/user-1000.slice"), onHost, stays, "", "stranger"},
		{"another container's", "0::/docker/" + otherID + "\n", mounted(otherID), stays, "", "stranger"},
		{"half an id", "0::/docker/" + ownID[:32] + "\n", onHost, stays, "", "stranger"},
		{"without cgroups", "", onHost, stays, "", "stranger"},
		{"a container that ends, v1", v1("/"), onHost, ends, "", "gone"},
		{"no such process", "", "", "", "", "gone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			if test.stat != "" {
				fake(t, root, 7, map[string]string{"cgroup": test.cgroup, "mountinfo": test.mountinfo, "stat": test.stat, "comm": "a) S\n"})
			}
			err := Prove(root, &model.Container{ID: ownID, PID: 7, NetworkMode: test.mode})
			_, stranger := errors.AsType[*StrangerError](err)
			if stranger != (test.want == "stranger") || errors.Is(err, netns.ErrProcessGone) != (test.want == "gone") || (err == nil) != (test.want == "") {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func fake(t *testing.T, root string, pid int, files map[string]string) {
	t.Helper()
	folder := filepath.Join(root, strconv.Itoa(pid))
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The error of a stranger is enough to find it, whatever its name is.
func TestStrangerIsNamed(t *testing.T) {
	root := t.TempDir()
	fake(t, root, 7, map[string]string{
		"cgroup": "4:memory:/\n0::/user.slice/session-1.scope\n", "mountinfo": onHost, "stat": "7 (\x1b[2J) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 8192 1", "comm": "\x1b[2J\n",
	})
	err := Prove(root, &model.Container{ID: ownID, PID: 7})
	if want := `process 7 ("\x1b[2J") is in cgroup /user.slice/session-1.scope`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestProveDamagedStat(t *testing.T) {
	for _, stat := range []string{"", "7", "7 (a) S 1 7", "7 (a) S 1 7 7 0 -1 x 0"} {
		root := t.TempDir()
		fake(t, root, 7, map[string]string{"cgroup": "0::/\n", "mountinfo": onHost, "stat": stat, "comm": "a\n"})
		if err := Prove(root, &model.Container{ID: ownID, PID: 7}); err == nil || !strings.Contains(err.Error(), "7/stat") {
			t.Errorf("%q: error %v, want one that names it", stat, err)
		}
	}
}

// A real process is a stranger until it is in the container's cgroup.
func TestProveRealProcess(t *testing.T) {
	cgroups, err := OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kernel.Skip(t, err.Error())
	}
	child := kernel.Isolated(t)
	folder, _ := kernel.Cgroup(t, cgroups.root, "portwatcher-test-"+ownID)
	t.Cleanup(func() { kernel.End(t, child) }) // before the cgroup
	c := &model.Container{ID: ownID, PID: child.Process.Pid}
	if err, ok := errors.AsType[*StrangerError](Prove("/proc", c)); !ok || err.Name != "sleep" {
		t.Errorf("error %v, want that sleep is a stranger", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Append(nil, c.PID), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Prove("/proc", c); err != nil {
		t.Error(err)
	}
	kernel.End(t, child)
	if err := Prove("/proc", c); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("error %v of an ended process, want ErrProcessGone", err)
	}
}
