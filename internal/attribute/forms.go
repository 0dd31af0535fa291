package attribute

import (
	"maps"
	"strings"

	"portwatcher/internal/model"
)

// idLength is the number of hexadecimal digits of a container's id.
const idLength = 64

// ContainerIn returns the container that cgroup paths name. Each of paths is one
// path, or the content of a /proc/<pid>/cgroup. Engines name a container's cgroup
// by its id ("/docker/<id>", "docker-<id>.scope"). Containers in containers are below
// each other: the innermost id for which lookup returns a container counts.
//
// If lookup finds none, stranger is the outermost id of a container that may be one of
// this engine's and that the engine has not announced yet. It is empty where there is no
// id, or where the form of the path is another engine's and is not among forms, which may
// be nil.
//
// ContainerIn keeps nothing; stranger is a part of one of paths.
func ContainerIn(forms *Forms, lookup func(id string) *model.Container, paths ...string) (c *model.Container, stranger string) {
	for _, path := range paths {
		found, unknown := containerIn(forms, lookup, path)
		if found != nil {
			return found, ""
		}
		if stranger == "" {
			stranger = unknown
		}
	}
	return nil, stranger
}

func containerIn(forms *Forms, lookup func(id string) *model.Container, paths string) (found *model.Container, stranger string) {
	for at, id := range idsIn(paths) {
		if c := lookup(id); c != nil {
			found = c
		} else if found == nil && stranger == "" {
			if form := foreignForm(paths, at); form == "" || forms.has(form) {
				stranger = id
			}
		}
	}
	if found != nil {
		stranger = ""
	}
	return found, stranger
}

// idsIn yields each run of exactly 64 hexadecimal digits and its place.
func idsIn(paths string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		run := 0
		for i := 0; i <= len(paths); i++ {
			if i < len(paths) && isHex(paths[i]) {
				run++
				continue
			}
			if run == idLength && !yield(i-idLength, paths[i-idLength:i]) {
				return
			}
			run = 0
		}
	}
}

func isHex(b byte) bool { return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' }

// maxForms bounds what is learned: an engine has one form, or a few.
const maxForms = 64

// Forms are the forms in which cgroup paths name containers of this engine although
// by its name the form is another engine's: the engine may be Podman behind
// Docker's API, or run Kubernetes' containers.
//
// A *Forms never changes and is safe for concurrent use; nil is the empty set. The
// owner of the containers keeps the newest and passes it to the readers of paths.
type Forms struct {
	known map[string]struct{}
}

// Learn returns f with the forms in which paths name containers that lookup finds, or f
// itself if it has them all. paths are as in [ContainerIn].
func (f *Forms) Learn(lookup func(id string) *model.Container, paths ...string) *Forms {
	for _, path := range paths {
		for at, id := range idsIn(path) {
			if form := foreignForm(path, at); form != "" && !f.has(form) && lookup(id) != nil {
				f = f.with(form)
			}
		}
	}
	return f
}

func (f *Forms) with(form string) *Forms {
	next := &Forms{known: map[string]struct{}{form: {}}}
	if f != nil {
		if len(f.known) >= maxForms {
			return f
		}
		maps.Copy(next.known, f.known)
	}
	return next
}

func (f *Forms) has(form string) bool {
	if f == nil {
		return false
	}
	_, ok := f.known[form]
	return ok
}

// foreignFolders are the beginnings of folders below which other engines keep their
// containers, or whole systems that have engines of their own. Sources: the cgroup
// managers of the kubelet (pkg/kubelet/cm), Podman (libpod), LXC (lxc.cgroup.dir) and
// systemd-nspawn(1).
var foreignFolders = []string{
	"kubepods", "kubelet-kubepods", // cgroupfs and systemd driver, kind
	"k8s.io",                                              // a namespace of containerd
	"libpod_parent", "machine-libpod_", "user-libpod_pod", // Podman: cgroupfs driver, pods
	"lxc", // lxc, lxc.payload.<name>, lxc.monitor.<name>
	"machine-", "systemd-nspawn@",
}

// foreignPrefixes are what other engines put before the id.
var foreignPrefixes = []string{
	"libpod-",                  // Podman, also libpod-conmon-
	"cri-containerd-", "crio-", // Kubernetes, also crio-conmon-
	"cri-containerd:", "nerdctl-", // containerd without and with systemd driver
}

// foreignForm returns the form of the path around the id at a place of paths if that
// form is certainly another engine's, otherwise the empty string. The form is the
// kind of folder above, a slash, and the element with a star for the id:
// "kubepods/cri-containerd-*.scope".
func foreignForm(paths string, at int) string {
	line := paths[strings.LastIndexByte(paths[:at], '\n')+1:]
	at -= len(paths) - len(line)
	folder, start := "", 0
	for start <= at {
		end := strings.IndexByte(line[start:], '/')
		if end < 0 || start+end > at {
			break
		}
		if above := line[start : start+end]; folder == "" {
			if folder = beginning(above, foreignFolders); folder == "" {
				folder = beginning(above, foreignPrefixes)
			}
		}
		start += end + 1
	}
	element, id := line[start:], line[at:at+idLength]
	if end := strings.IndexAny(element, "/\n"); end >= 0 {
		element = element[:end]
	}
	element = strings.TrimSuffix(element, " (deleted)") // of a cgroup that was removed
	before, after, _ := strings.Cut(element, id)
	switch {
	case strings.HasSuffix(after, ".mount"): // a unit of systemd for a layer of an image
	case before == "docker-":
		if folder == "" || strings.HasPrefix(folder, "kube") {
			return "" // Kubernetes has Docker run its containers
		}
	case folder == "" && beginning(element, foreignPrefixes) == "":
		if folder = beginning(element, foreignFolders); folder == "" {
			return ""
		}
	}
	if len(before) > len(folder) && beginning(before, foreignFolders) != "" {
		before = beginning(before, foreignFolders) // the rest names one pod
	}
	return folder + "/" + before + "*" + after
}

// beginning returns the first of prefixes that element begins with.
func beginning(element string, prefixes []string) string {
	for _, prefix := range prefixes {
		if strings.HasPrefix(element, prefix) {
			return prefix
		}
	}
	return ""
}
