package main

import (
	"bytes"
	"fmt"
	"os/exec"

	"github.com/prometheus/procfs"
	gopsutil "github.com/shirou/gopsutil/v4/net"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"tailscale.com/portlist"

	"portwatcher/internal/model"
	"portwatcher/internal/sockdiag"
)

// Socket states of include/net/tcp_states.h, as the peers give them.
const (
	stateClose  = 7
	stateListen = 10
)

// openWays returns the ways to scan, the one to compare with first. Each asks
// for the least with which its user learns of listeners and UDP sockets.
func openWays(order scanOrder) (ways []way, closeAll func(), err error) {
	bare, err := openBare()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", wayBare, err)
	}
	product, err := sockdiag.Dial(0, sockdiag.Options{})
	if err != nil {
		return nil, nil, err
	}
	files, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", wayProcfs, err)
	}
	poller := &portlist.Poller{IncludeLocalhost: true}
	closeAll = func() { // only sockets and files that are read: nothing can be lost
		_, _, _ = bare.close(), product.Close(), poller.Close()
	}
	return []way{
		{name: wayBare, scan: bare.scan},
		{name: wayProduct, scan: scanProduct(product)},
		{name: wayNetlink, scan: scanNetlink},
		{name: waySS, scan: scanProgram(keepLines, order.SS, "-tulnpH"), program: true, missing: missingProgram(order.SS)},
		{name: wayLsof, scan: scanProgram(keepLsof, order.Lsof, "-nP", "-i"), program: true, missing: missingProgram(order.Lsof)},
		{name: wayPortlist, scan: scanPortlist(poller)},
		{name: wayProcfs, scan: func() (int, error) { return scanProcfs(files) }},
		{name: wayGopsutil, scan: scanGopsutil},
	}, closeAll, nil
}

func missingProgram(path string) string {
	if path == "" {
		return "not installed"
	}
	return ""
}

func scanProduct(conn *sockdiag.Conn) func() (int, error) {
	var sockets []model.Socket
	return func() (int, error) {
		var err error
		sockets, err = conn.Dump(sockets[:0])
		return len(sockets), err
	}
}

func scanNetlink() (int, error) {
	found := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		tcp, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return 0, err
		}
		for _, socket := range tcp {
			if socket.State == stateListen {
				found++
			}
		}
		udp, err := netlink.SocketDiagUDP(family)
		if err != nil {
			return 0, err
		}
		for _, socket := range udp {
			if socket.State == stateClose {
				found++
			}
		}
	}
	return found, nil
}

func scanProcfs(files procfs.FS) (int, error) {
	found := 0
	//lint:ignore SA1019 deprecated for what is measured here
	for _, read := range []func() (procfs.NetTCP, error){files.NetTCP, files.NetTCP6} {
		lines, err := read()
		if err != nil {
			return 0, err
		}
		for _, line := range lines {
			if line.St == stateListen {
				found++
			}
		}
	}
	for _, read := range []func() (procfs.NetUDP, error){files.NetUDP, files.NetUDP6} {
		lines, err := read()
		if err != nil {
			return 0, err
		}
		for _, line := range lines {
			if line.St == stateClose {
				found++
			}
		}
	}
	return found, nil
}

func scanGopsutil() (int, error) {
	connections, err := gopsutil.Connections("inet")
	found := 0
	for _, c := range connections {
		if c.Status == "LISTEN" || c.Type == unix.SOCK_DGRAM && c.Raddr.Port == 0 {
			found++
		}
	}
	return found, err
}

// scanPortlist counts the ports of the last list: Poll returns none where
// nothing has changed.
func scanPortlist(poller *portlist.Poller) func() (int, error) {
	found := 0
	return func() (int, error) {
		ports, changed, err := poller.Poll()
		if changed {
			found = len(ports)
		}
		return found, err
	}
}

// scanProgram runs a program and counts the lines of its output that keep
// accepts.
func scanProgram(keep func(line []byte) bool, path string, arguments ...string) func() (int, error) {
	return func() (int, error) {
		output, err := exec.Command(path, arguments...).Output()
		if err != nil {
			return 0, err
		}
		found := 0
		for line := range bytes.Lines(output) {
			if keep(line) {
				found++
			}
		}
		return found, nil
	}
}

func keepLines([]byte) bool { return true }

func keepLsof(line []byte) bool {
	return bytes.Contains(line, []byte("(LISTEN)")) ||
		bytes.Contains(line, []byte(" UDP ")) && !bytes.Contains(line, []byte("->"))
}
