package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/model"

	"golang.org/x/sys/unix"
)

// holders returns the ids of the processes that hold the port, ascending: TCP
// sockets that listen, UDP sockets that are bound and not connected, in the
// network namespace of this process. proc is where procfs is mounted.
func holders(proc string, protocol model.Protocol, port uint16) ([]int, error) {
	inodes := map[string]bool{}
	for _, table := range []string{protocol.String(), protocol.String() + "6"} {
		if err := tableInodes(filepath.Join(proc, "net", table), protocol, port, inodes); err != nil {
			return nil, err
		}
	}
	if len(inodes) == 0 {
		return nil, nil
	}
	return processesWith(proc, inodes)
}

// tableInodes adds the inodes of the port's sockets to the set. A table that
// is not there (no IPv6) adds none.
func tableInodes(path string, protocol model.Protocol, port uint16, inodes map[string]bool) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the sockets of port %d: %w", port, err)
	}
	defer file.Close()
	if err := parseTable(file, protocol, port, inodes); err != nil {
		return fmt.Errorf("find the sockets of port %d in %s: %w", port, path, err)
	}
	return nil
}

// parseTable reads the format of /proc/net/tcp: a header, then lines whose
// fields are slot, local address as hexadecimal address:port, remote address,
// state, queues, timer, retransmits, uid, timeout, inode.
// Source: https://docs.kernel.org/networking/proc_net_tcp.html.
func parseTable(table io.Reader, protocol model.Protocol, port uint16, inodes map[string]bool) error {
	state := "0A" // TCP_LISTEN
	if protocol == model.UDP {
		state = "07" // TCP_CLOSE: not connected
	}
	wanted := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(table)
	for header := true; lines.Scan(); header = false {
		if header {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			return fmt.Errorf("line %q: %d fields, want 10 or more", lines.Text(), len(fields))
		}
		if fields[3] == state && strings.HasSuffix(fields[1], wanted) {
			inodes[fields[9]] = true
		}
	}
	return lines.Err()
}

// processesWith returns the processes that hold one of the socket inodes. A
// process that ends during the search is skipped, and so is one whose files may
// not be read.
func processesWith(proc string, inodes map[string]bool) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		has, err := holdsAny(filepath.Join(proc, entry.Name(), "fd"), inodes)
		if err != nil {
			return nil, fmt.Errorf("list the open files of process %d: %w", pid, err)
		}
		if has {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}

func holdsAny(folder string, inodes map[string]bool) (bool, error) {
	files, err := os.ReadDir(folder)
	if outOfSight(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, file := range files {
		target, err := os.Readlink(filepath.Join(folder, file.Name()))
		if outOfSight(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if isSocket && inodes[strings.TrimSuffix(inode, "]")] {
			return true, nil
		}
	}
	return false, nil
}

// outOfSight reports whether the error means that the process has ended, or that
// its files are hidden from this user.
func outOfSight(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrPermission)
}
