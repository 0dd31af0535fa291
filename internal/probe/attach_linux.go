package probe

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	remedyAge    = "Linux 5.14 or later"
	remedyKernel = "Linux 5.14 or later with CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS, CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF"
	remedyRights = "give CAP_SYS_ADMIN, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a seccomp profile that allows bpf(2)"
)

// programs are all of bpf/sockets.bpf.c, in the order in which they are attached. Those
// of closings come first, so that none is missed of a socket that opens during Open.
var programs = []string{
	"udp_unhash", "udp_release", "udp_connect4", "udp_connect6", "udp_bind4", "udp_bind6", "udp_bound4", "udp_bound6",
	"tcp_listen_stop", "tcp_listen", "tcp_state",
}

// unsupported makes an *UnsupportedError with the remedy that fits err and the
// running kernel.
func unsupported(feature string, err error) error {
	release, readErr := KernelRelease()
	return &UnsupportedError{Feature: feature, Remedy: remedyFor(release, err), Err: errors.Join(err, readErr)}
}

// remedyFor returns the remedy for err on a kernel of that release. The kernel's age
// comes first: an old kernel answers EPERM or EINVAL to unknown features.
func remedyFor(release string, err error) string {
	switch {
	case OlderThan(release, 5, 14):
		return remedyAge
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return remedyRights
	}
	return remedyKernel
}

// explainLoad returns an error that names the first program that cannot be loaded
// alone, where loading all of them failed with err.
func explainLoad(spec *ebpf.CollectionSpec, types *btf.Cache, err error) error {
	for name, program := range spec.Programs {
		alone := spec.Copy()
		alone.Programs = map[string]*ebpf.ProgramSpec{name: program.Copy()}
		loaded, loadErr := ebpf.NewCollectionWithOptions(alone, ebpf.CollectionOptions{Cache: types})
		if loadErr != nil {
			return unsupported(program.SectionName, loadErr)
		}
		loaded.Close()
	}
	return unsupported("loading programs", err)
}

// attachAll attaches the programs of spec that are loaded. After an error nothing stays
// attached.
func attachAll(root string, spec *ebpf.CollectionSpec, objects *ebpf.Collection) ([]attached, error) {
	var hooks []attached
	for _, name := range programs {
		program := objects.Programs[name]
		if program == nil {
			continue
		}
		hook, err := attach(root, spec.Programs[name], program)
		if err != nil {
			for _, done := range hooks {
				err = errors.Join(err, done.link.Close())
			}
			return nil, err
		}
		hooks = append(hooks, hook)
	}
	return hooks, nil
}

// attach attaches one program. Its hook is the name of its section.
func attach(root string, spec *ebpf.ProgramSpec, program *ebpf.Program) (attached, error) {
	var at link.Link
	var err error
	if spec.Type == ebpf.Tracing {
		at, err = link.AttachTracing(link.TracingOptions{Program: program, AttachType: spec.AttachType})
	} else {
		at, err = link.AttachCgroup(link.CgroupOptions{Path: root, Attach: spec.AttachType, Program: program})
	}
	if err != nil {
		return attached{}, unsupported(spec.SectionName, err)
	}
	// Without links, AttachCgroup attaches in a way that would outlive this process,
	// and that has no Info.
	info, err := at.Info()
	if err != nil {
		return attached{}, errors.Join(unsupported(spec.SectionName+" by link", err), at.Close())
	}
	return attached{hook: spec.SectionName, link: at, id: info.Program}, nil
}
