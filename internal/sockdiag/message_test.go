package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// The files in testdata are datagrams of a 6.18 kernel (amd64, little-endian),
// each table's answer to request 7 in a namespace with one socket a table.
const captured = 7

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		kernel.Skip(t, "the fixtures are those of a little-endian machine")
	}
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tableOf(family uint8, protocol model.Protocol) *table {
	t := newTable(family, protocol, anyPort)
	return &t
}

func TestParseDumpOfARealKernel(t *testing.T) {
	for _, test := range []struct {
		file  string
		table *table
		want  model.Socket
	}{
		{"tcp-ipv4-0.bin", tableOf(unix.AF_INET, model.TCP), model.Socket{Protocol: model.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 4567}},
		{"tcp-ipv6-0.bin", tableOf(unix.AF_INET6, model.TCP), model.Socket{Protocol: model.TCP, Address: netip.MustParseAddr("::1"), Port: 4568, IPv6Only: true}},
		{"udp-ipv4-0.bin", tableOf(unix.AF_INET, model.UDP), model.Socket{Protocol: model.UDP, Address: netip.MustParseAddr("0.0.0.0"), Port: 5353}},
		{"udp-ipv6-0.bin", tableOf(unix.AF_INET6, model.UDP), model.Socket{Protocol: model.UDP, Address: netip.MustParseAddr("::"), Port: 5354, IPv6Only: true}},
	} {
		t.Run(test.file, func(t *testing.T) {
			sockets, done, interrupted, err := parseDump(nil, fixture(t, test.file), captured, test.table)
			if err != nil || done || interrupted {
				t.Fatalf("done %v, interrupted %v, error %v; want a part of a dump", done, interrupted, err)
			}
			if len(sockets) != 1 {
				t.Fatalf("%d sockets, want 1", len(sockets))
			}
			got := sockets[0]
			if got.Cookie == 0 || got.Inode == 0 || got.Cgroup == 0 {
				t.Errorf("cookie %d, inode %d, cgroup %d; want all of them", got.Cookie, got.Inode, got.Cgroup)
			}
			got.Cookie, got.Inode, got.Cgroup = 0, 0, 0
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			end, done, _, err := parseDump(sockets, fixture(t, strings.Replace(test.file, "-0", "-1", 1)), captured, test.table)
			if err != nil || !done || len(end) != 1 {
				t.Errorf("the last datagram: done %v, %d sockets, error %v", done, len(end), err)
			}
		})
	}
}

// edit returns a copy of b with a change.
func edit(b []byte, change func(b []byte)) []byte {
	b = bytes.Clone(b)
	change(b)
	return b
}

func TestParseDumpRefusesDamage(t *testing.T) {
	whole := fixture(t, "tcp-ipv6-0.bin")
	const firstAttribute = unix.SizeofNlMsghdr + messageLength
	for _, test := range []struct {
		name, want string
		datagram   []byte
	}{
		{"short header", "15 bytes left where a netlink header takes 16", whole[:15]},
		{"cut off", "a length of 132 in a netlink header, with 131 bytes there", whole[:131]},
		{"length below the header's", "a length of 15", edit(whole, func(b []byte) { b[0] = 15 })},
		{"short message", "24 bytes where an inet_diag_msg takes 72", edit(whole, func(b []byte) { b[0] = 40 })},
		{"address family", "address family 99", edit(whole, func(b []byte) { b[unix.SizeofNlMsghdr] = 99 })},
		{"other request", "an answer to request 8 while waiting for 7", edit(whole, func(b []byte) { b[8] = 8 })},
		{"message type", "message type 77", edit(whole, func(b []byte) { b[4] = 77 })},
		{"attribute too long", "with 44 there", edit(whole, func(b []byte) { b[firstAttribute] = 200 })},
		{"attribute too short", "claims 3 bytes", edit(whole, func(b []byte) { b[firstAttribute] = 3 })},
		{"positive error", "a positive error code 5", edit(fixture(t, "tcp-ipv4-1.bin"), func(b []byte) { b[16] = 5 })},
		{"short error", "2 bytes where an error code takes 4", edit(fixture(t, "tcp-ipv4-1.bin"), func(b []byte) { b[0] = 18 })[:18]},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, _, err := parseDump(nil, test.datagram, captured, tableOf(unix.AF_INET6, model.TCP))
			var bad *MalformedError
			if !errors.As(err, &bad) || !strings.Contains(bad.What, test.want) {
				t.Errorf("error %v; want a MalformedError with %q", err, test.want)
			}
		})
	}
}

func TestParseDumpKernelErrors(t *testing.T) {
	failure := func(code int32) []byte {
		return edit(fixture(t, "tcp-ipv4-1.bin"), func(b []byte) {
			binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
			binary.NativeEndian.PutUint32(b[unix.SizeofNlMsghdr:], uint32(code))
		})
	}
	_, done, _, err := parseDump(nil, failure(-int32(syscall.ENOBUFS)), captured, tableOf(unix.AF_INET, model.TCP))
	if !done || !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("done %v, error %v; want ENOBUFS", done, err)
	}
	for _, test := range []struct {
		errno           syscall.Errno
		table           table
		feature, remedy string
	}{
		// No handler for the protocol, and none for TCPDIAG_GETSOCK.
		{syscall.ENOENT, *tableOf(unix.AF_INET6, model.UDP), "udp sockets of IPv6", "modprobe -a inet_diag udp_diag and"},
		{syscall.EOPNOTSUPP, listeners(), "tcp sockets", "modprobe -a inet_diag tcp_diag and"},
		{syscall.EOPNOTSUPP, listeners(), "tcp sockets", "CONFIG_INET_TCP_DIAG"},
	} {
		_, done, _, err := parseDump(nil, failure(-int32(test.errno)), captured, &test.table)
		var missing *UnsupportedError
		if !done || !errors.As(err, &missing) || missing.Feature != test.feature || !strings.Contains(missing.Remedy, test.remedy) || !errors.Is(err, test.errno) {
			t.Errorf("error %v; want an UnsupportedError of %s with %q", err, test.feature, test.remedy)
		}
	}
}

func TestParseDumpNoticesInterruption(t *testing.T) {
	cut := edit(fixture(t, "udp-ipv4-0.bin"), func(b []byte) { b[6] |= unix.NLM_F_DUMP_INTR })
	if _, _, interrupted, err := parseDump(nil, cut, captured, tableOf(unix.AF_INET, model.UDP)); !interrupted || err != nil {
		t.Errorf("interrupted %v, error %v; want an interrupted dump without an error", interrupted, err)
	}
}

func TestParseDumpUnmapsIPv4(t *testing.T) {
	mapped := edit(fixture(t, "tcp-ipv6-0.bin"), func(b []byte) {
		copy(b[unix.SizeofNlMsghdr+offsetSourceAddress:], netip.MustParseAddr("::ffff:10.1.2.3").AsSlice())
	})
	sockets, _, _, err := parseDump(nil, mapped, captured, tableOf(unix.AF_INET6, model.TCP))
	if err != nil || sockets[0].Address != netip.MustParseAddr("10.1.2.3") {
		t.Errorf("%v, error %v; want 10.1.2.3", sockets, err)
	}
}

func FuzzParseDump(f *testing.F) {
	for _, name := range []string{"tcp-ipv4-0.bin", "tcp-ipv6-0.bin", "udp-ipv6-0.bin", "udp-ipv4-1.bin"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sockets, _, _, err := parseDump(nil, b, captured, tableOf(unix.AF_INET6, model.TCP))
		for _, s := range sockets {
			if s.Port == 0 || !s.Address.IsValid() {
				t.Errorf("socket %+v, error %v; want a port and an address", s, err)
			}
		}
		if len(sockets) > len(b)/(unix.SizeofNlMsghdr+messageLength) {
			t.Errorf("%d sockets out of %d bytes", len(sockets), len(b))
		}
	})
}
