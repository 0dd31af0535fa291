// Package netif reads the network interfaces of a network namespace and their addresses
// from the kernel (rtnetlink), and reports when they change. It keeps no state and changes
// nothing.
package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// groups are the multicast groups of what [Read] returns, as bits: rtnetlink(7).
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR

// Read returns the interfaces of the network namespace of descriptor fd that are up and have
// an address, except loopback, in the order of the kernel. The list is never nil without an
// error. Read needs CAP_SYS_ADMIN for the namespace; the error wraps the errno. It is safe
// for concurrent use.
func Read(fd int) (list []model.Interface, err error) {
	conn, err := rtnetlink.Dial(&netlink.Config{NetNS: fd})
	if err != nil {
		return nil, fmt.Errorf("read network interfaces: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	links, err := conn.Link.List()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	addresses, err := conn.Address.List()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of network interfaces: %w", err)
	}
	list = []model.Interface{}
	for i := range links {
		link := &links[i]
		if link.Flags&unix.IFF_LOOPBACK != 0 || link.Flags&unix.IFF_UP == 0 || link.Attributes == nil {
			continue
		}
		device := model.Interface{Name: link.Attributes.Name, Addresses: addressesOf(link.Index, addresses)}
		if info := link.Attributes.Info; info != nil {
			device.Kind = info.Kind
		}
		if len(device.Addresses) > 0 {
			list = append(list, device)
		}
	}
	return list, nil
}

// addressesOf returns the addresses of an interface, sorted.
func addressesOf(index uint32, all []rtnetlink.AddressMessage) (addresses []netip.Addr) {
	for i := range all {
		if all[i].Index != index || all[i].Attributes == nil {
			continue
		}
		// Of a point-to-point interface, Address is the other side's: rtnetlink(7).
		ip := all[i].Attributes.Local
		if ip == nil {
			ip = all[i].Attributes.Address
		}
		if address, ok := netip.AddrFromSlice(ip); ok {
			addresses = append(addresses, address.Unmap())
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}

// Listener receives a message for each change of an interface or an address in one network
// namespace. It keeps that namespace alive until it is closed.
//
// Wait must not be called concurrently with itself. Close ends a Wait.
type Listener struct{ conn *netlink.Conn }

// Listen subscribes to the changes in the network namespace of descriptor fd. Changes after
// its return are received. The errors are those of [Read].
func Listen(fd int) (*Listener, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: fd, Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("listen for changes of network interfaces: %w", err)
	}
	return &Listener{conn}, nil
}

// Wait blocks until something has changed since the last call. Messages that the kernel had
// to drop count as a change. The error means that nothing more is received.
func (l *Listener) Wait() error {
	_, err := l.conn.Receive()
	if err == nil || errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return fmt.Errorf("wait for changes of network interfaces: %w", err)
}

// Close ends the subscription.
func (l *Listener) Close() error { return l.conn.Close() }
