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
var programs = []struct {
	name, hook string
	attach     ebpf.AttachType
}{
	{socketsProgUdpRelease, "cgroup/sock_release", ebpf.AttachCgroupInetSockRelease},
	{socketsProgUdpConnect4, "cgroup/connect4", ebpf.AttachCGroupInet4Connect},
	{socketsProgUdpConnect6, "cgroup/connect6", ebpf.AttachCGroupInet6Connect},
	{socketsProgUdpBind4, "cgroup/bind4", ebpf.AttachCGroupInet4Bind},
	{socketsProgUdpBind6, "cgroup/bind6", ebpf.AttachCGroupInet6Bind},
	{socketsProgUdpBound4, "cgroup/post_bind4", ebpf.AttachCGroupInet4PostBind},
	{socketsProgUdpBound6, "cgroup/post_bind6", ebpf.AttachCGroupInet6PostBind},
	{socketsProgTcpListenStop, "fentry/inet_csk_listen_stop", ebpf.AttachTraceFEntry},
	{socketsProgTcpListen, "fexit/inet_csk_listen_start", ebpf.AttachTraceFExit},
	{socketsProgTcpState, "tp_btf/inet_sock_set_state", ebpf.AttachTraceRawTp},
}

// hookOf returns the hook of a program.
func hookOf(name string) string {
	for _, p := range programs {
		if p.name == name {
			return p.hook
		}
	}
	return name
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
			return unsupported(hookOf(name), loadErr)
		}
		loaded.Close()
	}
	return unsupported("loading programs", err)
}

// attachAll attaches the loaded programs. After an error nothing stays attached.
func attachAll(root string, objects *ebpf.Collection) ([]attached, error) {
	var hooks []attached
	for _, p := range programs {
		program := objects.Programs[p.name]
		if program == nil {
			continue
		}
		hook, err := attach(p.hook, root, program, p.attach)
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

func attach(hook, root string, program *ebpf.Program, kind ebpf.AttachType) (attached, error) {
	var at link.Link
	var err error
	if program.Type() == ebpf.Tracing {
		at, err = link.AttachTracing(link.TracingOptions{Program: program, AttachType: kind})
	} else {
		at, err = link.AttachCgroup(link.CgroupOptions{Path: root, Attach: kind, Program: program})
	}
	if err != nil {
		return attached{}, unsupported(hook, err)
	}
	// Without links, AttachCgroup attaches in a way that would outlive this process,
	// and that has no Info.
	info, err := at.Info()
	if err != nil {
		return attached{}, errors.Join(unsupported(hook+" by link", err), at.Close())
	}
	return attached{hook: hook, link: at, id: info.Program}, nil
}
