package attribute

import (
	"strings"
	"testing"

	"portwatcher/internal/model"
)

const podUID = "pod0c5b5c2e-4f0b-4d0c-9a53-6d3c0f5f9a11"

// Paths as engines make them, with A and B in the place of the ids of containers
// that this engine has announced and X and Y of ids that it has not.
func TestContainerIn(t *testing.T) {
	const kubeSystemd = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + podUID + ".slice/"
	for _, test := range []struct {
		name, paths, want, stranger string
	}{
		// Docker.
		{"cgroupfs", "0::/docker/A\n", "A", ""},
		{"cgroupfs, not announced yet", "0::/docker/X\n", "", "X"},
		{"systemd", "0::/system.slice/docker-B.scope\n", "B", ""},
		{"systemd, not announced yet", "0::/system.slice/docker-X.scope\n", "", "X"},
		{"v1", "11:pids:/docker/A\n10:memory:/docker/A\n1:name=systemd:/docker/A\n", "A", ""},
		{"v1, not announced yet", "11:pids:/docker/X\n10:memory:/docker/X\n1:name=systemd:/docker/X\n", "", "X"},
		{"v1 with systemd", "4:memory:/system.slice/docker-X.scope\n1:name=systemd:/system.slice/docker-X.scope\n0::/system.slice/docker-X.scope\n", "", "X"},
		{"hybrid", "4:memory:/docker/X\n1:name=systemd:/docker/X\n0::/system.slice/containerd.service\n", "", "X"},
		{"a path alone", "/docker/X", "", "X"},
		{"cgroup below the container's", "/docker/A/init.scope", "A", ""},
		{"below the container's, not announced yet", "/docker/X/init.scope", "", "X"},
		{"removed", "0::/docker/X (deleted)\n", "", "X"},
		{"relative to a cgroup namespace", "0::/../A\n", "A", ""},
		{"relative, not announced yet", "0::/../X\n", "", "X"},
		{"own parent", "/ci/job/B", "B", ""},
		{"own parent, not announced yet", "/actions_job/X", "", "X"},
		{"own slice", "0::/shop.slice/shop-db.slice/docker-X.scope\n", "", "X"},
		{"Amazon ECS", "0::/ecs/0d1f6a4b8d2c4f6f9b6a/X\n", "", "X"},
		{"rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-X.scope\n", "", "X"},
		{"Kubernetes by Docker, systemd", kubeSystemd + "docker-X.scope\n", "", "X"},
		// Containers in containers.
		{"both known", "/docker/A/docker/B", "B", ""},
		{"of an engine inside", "/docker/A/docker/X", "A", ""},
		{"of an engine inside a container inside", "/docker/A/docker/B/docker/X", "B", ""},
		{"of an engine inside one not announced yet", "/docker/X/docker/Y", "", "X"},
		{"the inner announced first", "/docker/X/docker/A", "A", ""},
		{"kind", "0::/docker/A/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-" + podUID + ".slice/cri-containerd-X.scope\n", "A", ""},
		{"kind, not announced yet", "0::/docker/X/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-" + podUID + ".slice/cri-containerd-Y.scope\n", "", "X"},
		// Podman.
		{"Podman, systemd", "0::/machine.slice/libpod-X.scope/container\n", "", ""},
		{"Podman, announced", "0::/machine.slice/libpod-A.scope/container\n", "A", ""},
		{"Podman, monitor", "0::/machine.slice/libpod-conmon-X.scope\n", "", ""},
		{"Podman, cgroupfs", "0::/libpod_parent/libpod-X\n", "", ""},
		{"Podman, pod", "0::/machine.slice/machine-libpod_pod_X.slice/libpod-Y.scope/container\n", "", ""},
		{"Podman, pod, cgroupfs", "0::/libpod_parent/X/libpod-Y\n", "", ""},
		{"Podman, rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-X.scope/container\n", "", ""},
		{"Podman, rootless pod", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_X.slice/libpod-Y.scope\n", "", ""},
		{"Podman, v1", "12:pids:/machine.slice/libpod-X.scope\n1:name=systemd:/machine.slice/libpod-X.scope\n", "", ""},
		{"Docker in Podman", "0::/machine.slice/libpod-X.scope/container/docker/Y\n", "", ""},
		// Kubernetes.
		{"containerd, systemd", kubeSystemd + "cri-containerd-X.scope\n", "", ""},
		{"containerd, cgroupfs", "0::/kubepods/besteffort/" + podUID + "/X\n", "", ""},
		{"containerd, v1", "11:devices:/kubepods/burstable/" + podUID + "/X\n5:memory:/kubepods/burstable/" + podUID + "/X\n", "", ""},
		{"containerd, mixed drivers", "0::/system.slice/containerd.service/kubepods-burstable-" + podUID + ".slice:cri-containerd:X\n", "", ""},
		{"containerd without a parent", "0::/k8s.io/X\n", "", ""},
		{"CRI-O", kubeSystemd + "crio-X.scope\n", "", ""},
		{"CRI-O, monitor", kubeSystemd + "crio-conmon-X.scope\n", "", ""},
		{"CRI-O below its scope", kubeSystemd + "crio-X.scope/container\n", "", ""},
		{"Docker in a pod", "0::/kubepods/besteffort/" + podUID + "/X/docker/Y\n", "", ""},
		{"nerdctl", "0::/system.slice/nerdctl-X.scope\n", "", ""},
		// Whole systems with an engine inside.
		{"LXC", "0::/lxc.payload.web/docker/X\n", "", ""},
		{"LXC, v1", "4:memory:/lxc/web/docker/X\n", "", ""},
		{"LXC without an engine", "0::/lxc.payload.web/system.slice/ssh.service\n", "", ""},
		{"systemd-nspawn", "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/docker-X.scope\n", "", ""},
		{"virtual machine", "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/X\n", "", ""},
		// No container.
		{"a mount of a layer", "0::/system.slice/var-lib-docker-overlay2-X-merged.mount\n", "", ""},
		{"too long to be an id", "/docker/A0", "", ""},
		{"half an id", "/docker/" + strings.Repeat("a", 32), "", ""},
		{"a process of the host", "0::/system.slice/ssh.service\n", "", ""},
		{"a session", "0::/user.slice/user-1000.slice/session-3.scope\n", "", ""},
		{"root", "0::/", "", ""},
		{"nothing", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, stranger := ContainerIn(nil, known, withIDs(test.paths))
			if got == nil {
				got = &model.Container{}
			}
			if got.ID != withIDs(test.want) || stranger != withIDs(test.stranger) {
				t.Errorf("container %q, stranger %q; want %q, %q", got.ID, stranger, withIDs(test.want), withIDs(test.stranger))
			}
		})
	}
}

// The ids that stand for A, B, X and Y.
var ids = map[rune]string{'A': idA, 'B': idB, 'X': idC, 'Y': strings.Repeat("d4", 32)}

// known has A and B.
func known(id string) *model.Container {
	if id == idA || id == idB {
		return &model.Container{ID: id}
	}
	return nil
}

// withIDs puts ids in their places.
func withIDs(text string) string {
	var b strings.Builder
	runes := []rune(text)
	for i, r := range runes {
		separate := func(at int) bool {
			return at < 0 || at >= len(runes) || !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzCIO", runes[at])
		}
		if id, ok := ids[r]; ok && separate(i-1) && separate(i+1) {
			b.WriteString(id)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Of several paths the first with a container counts, then the first stranger.
func TestContainerInSeveralPaths(t *testing.T) {
	for _, test := range []struct {
		first, second, want, stranger string
	}{
		{"/docker/X", "/docker/A", "A", ""},
		{"/docker/A", "/docker/B", "A", ""},
		{"", "/docker/X", "", "X"},
		{"/docker/X", "/docker/Y", "", "X"},
		{"/", "", "", ""},
	} {
		got, stranger := ContainerIn(nil, known, withIDs(test.first), withIDs(test.second))
		if got == nil {
			got = &model.Container{}
		}
		if got.ID != withIDs(test.want) || stranger != withIDs(test.stranger) {
			t.Errorf("%+v: container %q, stranger %q", test, got.ID, stranger)
		}
	}
}

// A form in which a container of this engine was seen is this engine's.
func TestForms(t *testing.T) {
	for _, test := range []struct {
		name, seen, path, stranger string
	}{
		{"Podman", "0::/machine.slice/libpod-A.scope/container\n", "0::/machine.slice/libpod-X.scope/container\n", "X"},
		{"Podman, removed", "0::/machine.slice/libpod-A.scope (deleted)\n", "0::/machine.slice/libpod-X.scope\n", "X"},
		{"Podman, not its monitor", "0::/machine.slice/libpod-A.scope\n", "0::/machine.slice/libpod-conmon-X.scope\n", ""},
		{"Podman, not in a pod", "0::/machine.slice/libpod-A.scope\n", "0::/machine.slice/machine-libpod_pod_X.slice/libpod-Y.scope\n", ""},
		{"Podman, in a pod", "0::/machine.slice/machine-libpod_pod_X.slice/libpod-A.scope\n", "0::/machine.slice/machine-libpod_pod_X.slice/libpod-Y.scope\n", "Y"},
		{"Docker in it is none", "0::/machine.slice/libpod-A.scope\n", "0::/machine.slice/libpod-X.scope/docker/Y\n", "X"},
		{"another pod of Kubernetes", "0::/kubepods/besteffort/pod1/A\n", "0::/kubepods/burstable/pod2/X\n", "X"},
		{"mixed drivers", "0::/system.slice/kubepods-pod1.slice:cri-containerd:A\n", "0::/system.slice/kubepods-pod2.slice:cri-containerd:X\n", "X"},
		{"an engine in LXC", "4:memory:/lxc/web/docker/A\n", "4:memory:/lxc/web/docker/X\n", "X"},
		{"nothing to learn", "0::/docker/A\n", "0::/machine.slice/libpod-X.scope\n", ""},
		{"of a stranger nothing is learned", "0::/machine.slice/libpod-Y.scope\n", "0::/machine.slice/libpod-X.scope\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var none *Forms
			forms := none.Learn(known, "", withIDs(test.seen))
			if again := forms.Learn(known, withIDs(test.seen)); again != forms {
				t.Error("the same form makes another value")
			}
			if c, stranger := ContainerIn(forms, known, withIDs(test.path)); c != nil || stranger != withIDs(test.stranger) {
				t.Errorf("container %v, stranger %q; want %q", c, stranger, withIDs(test.stranger))
			}
		})
	}
}

func TestFormsAreBoundedAndNeverChange(t *testing.T) {
	var forms *Forms
	first := forms.Learn(known, "/libpod-"+idA)
	forms = first
	for i := range 2 * maxForms {
		forms = forms.Learn(known, "/libpod-"+idA+strings.Repeat(".", i))
	}
	if len(forms.known) != maxForms || len(first.known) != 1 {
		t.Errorf("%d forms, the first has %d; want %d and 1", len(forms.known), len(first.known), maxForms)
	}
}

func FuzzContainerIn(f *testing.F) {
	for _, path := range []string{"0::/docker/A\n", "/libpod_parent/X/libpod-Y (deleted)\n1:/kubepods/pod1/X", "kubepods-X", "lxc/X/", "X"} {
		f.Add(withIDs(path))
	}
	f.Fuzz(func(t *testing.T, paths string) {
		forms := (*Forms)(nil).Learn(func(string) *model.Container { return &model.Container{} }, paths)
		for _, forms := range []*Forms{nil, forms} {
			c, stranger := ContainerIn(forms, known, paths)
			if c != nil && stranger != "" || stranger != "" && (len(stranger) != idLength || !strings.Contains(paths, stranger)) {
				t.Errorf("container %v and stranger %q in %q", c, stranger, paths)
			}
		}
	})
}

func BenchmarkContainerIn(b *testing.B) {
	for name, path := range map[string]string{
		"known": "0::/docker/A\n", "stranger": "0::/system.slice/docker-X.scope\n", "host": "0::/user.slice/user-1000.slice/session-3.scope\n",
	} {
		path := withIDs(path)
		container := &model.Container{}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ContainerIn(nil, func(id string) *model.Container {
					if id == idA {
						return container
					}
					return nil
				}, path)
			}
		})
	}
}
