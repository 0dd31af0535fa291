package sockdiag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// explainDial adds the remedy to an error of opening a netlink socket.
func explainDial(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: entering a network namespace needs CAP_SYS_ADMIN (cap_add: SYS_ADMIN)", err)
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return &UnsupportedError{Feature: "NETLINK_SOCK_DIAG", Remedy: remedyModules("inet_diag"), Err: err}
	}
	return err
}

// LoadModules has the kernel load the modules that dumps and destroy notifications
// of TCP and UDP need, where they are missing. It returns nil where all are there,
// else an error that wraps a *[UnsupportedError] for each protocol without one, or
// is another of [Dial] or [Conn.Dump].
//
// What loads a module is a request for a family or protocol without a handler: the
// kernel then runs the host's modprobe for the alias "net-pf-16-proto-4-type-2"
// (inet_diag), "…-type-2-6" (tcp_diag) or "…-type-2-17" (udp_diag), whoever sends the
// request, and answers when modprobe has ended (sock_load_diag_module in
// net/core/sock_diag.c). Every dump is such a request. A subscription is one for
// inet_diag alone: without tcp_diag or udp_diag a [Listener] receives nothing, and no
// error.
func LoadModules() error {
	conn, err := Dial(0, Options{})
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range []table{listeners(), newTable(familyIPv4, model.UDP, userChosen)} {
		_, err := conn.dumpTable(nil, &t)
		errs = append(errs, err)
		if _, missing := errors.AsType[*UnsupportedError](err); err != nil && !missing {
			break // the connection is in an unknown state
		}
	}
	return errors.Join(append(errs, conn.Close())...)
}
