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

// LoadModules makes the kernel load the modules that dumps and destroy notifications
// of TCP and UDP need. It returns nil where all are loaded, otherwise an error that
// wraps an *[UnsupportedError] for each protocol without its module, or another error of
// [Dial] or [Conn.Dump].
//
// On a request for a family or protocol without a handler, from any process, the kernel
// runs the host's modprobe for the alias "net-pf-16-proto-4-type-2" (inet_diag),
// "…-type-2-6" (tcp_diag) or "…-type-2-17" (udp_diag), and answers when modprobe has
// ended (sock_load_diag_module in net/core/sock_diag.c). Every dump is such a request. A
// subscription is one for inet_diag alone: without tcp_diag or udp_diag a [Listener]
// receives neither messages nor an error.
func LoadModules() error {
	conn, err := Dial(0, Options{})
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range []table{listeners(), newTable(unix.AF_INET, model.UDP, userChosen)} {
		_, err := conn.dumpTable(nil, &t)
		errs = append(errs, err)
		if _, missing := errors.AsType[*UnsupportedError](err); err != nil && !missing {
			break // the connection is in an unknown state
		}
	}
	return errors.Join(append(errs, conn.Close())...)
}
