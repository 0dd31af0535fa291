package procfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/sockdiag"
)

// TestFixture reads files captured on Linux 6.18 (x86-64): in a namespace with
// 200 TCP connections, 40 connected UDP sockets and these.
func TestFixture(t *testing.T) {
	got, err := read(nil, "testdata/linux-6.18/1", parser{ephemeral: Range{32768, 60999}})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%v %v auto=%v uid=%d inode=%d", s.Protocol, netip.AddrPortFrom(s.Address, s.Port), s.AutoBound, s.UID, s.Inode))
		if s.Cookie != inodeCookie(s.Inode) || s.Cgroup != 0 || s.IPv6Only {
			t.Errorf("facts from nowhere: %+v", s)
		}
	}
	want := []string{
		"tcp 0.0.0.0:80 auto=false uid=0 inode=10030007",
		"tcp 127.0.0.1:6379 auto=false uid=0 inode=10030010",
		"tcp 127.0.0.1:1 auto=false uid=0 inode=10030019",
		"tcp [::1]:5432 auto=false uid=0 inode=10030017",
		"tcp [::]:8080 auto=false uid=0 inode=10030016",
		"tcp [fe80::1]:65535 auto=false uid=0 inode=10030022",
		"udp 127.0.0.1:47979 auto=true uid=999 inode=10030029",
		"udp 0.0.0.0:53 auto=false uid=999 inode=10030024",
		"udp 127.0.0.1:51820 auto=true uid=999 inode=10030026",
		"udp [::]:5353 auto=false uid=999 inode=10030027",
		"udp [::1]:123 auto=false uid=999 inode=10030028",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// files makes a folder like /proc with one process, 7, from file names and
// contents.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "7/net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadRefuses(t *testing.T) {
	const line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n"
	whole := func() map[string]string {
		return map[string]string{"tcp": header + line, "tcp6": header, "udp": header, "udp6": header}
	}
	for _, test := range []struct {
		name, file, content string
		line                int
	}{
		{"damaged line", "tcp", header + line + "   1: nonsense\n", 3},
		{"empty file", "udp", "", 1},
		{"cut file", "tcp6", header + "   0: 00", 2},
		{"endless line", "udp6", header + strings.Repeat(" ", 2*bufferSize), 2},
	} {
		contents := whole()
		contents[test.file] = test.content
		root := files(t, contents)
		before := []model.Socket{{Cookie: 1}}
		got, err := Read(before, root, 7, Range{})
		var parse *ParseError
		if !errors.As(err, &parse) || parse.File != filepath.Join(root, "7/net", test.file) || parse.Line != test.line {
			t.Errorf("%s: error %v, want a *ParseError for %s, line %d", test.name, err, test.file, test.line)
		}
		if !slices.Equal(got, before) {
			t.Errorf("%s: sockets in spite of an error: %+v", test.name, got)
		}
	}
}

func TestReadWithoutIPv6(t *testing.T) {
	const line = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n"
	root := files(t, map[string]string{"tcp": header + line, "udp": header})
	if got, err := Read(nil, root, 7, Range{}); err != nil || len(got) != 1 {
		t.Errorf("without IPv6: %+v, %v, want one socket", got, err)
	}
	// Without IPv4 it is no namespace.
	for name, contents := range map[string]map[string]string{
		"no udp":  {"tcp": header},
		"no tcp":  {"udp": header},
		"nothing": {},
	} {
		if got, err := Read(nil, files(t, contents), 7, Range{}); !errors.Is(err, netns.ErrProcessGone) || len(got) != 0 {
			t.Errorf("%s: %+v, %v, want ErrProcessGone", name, got, err)
		}
	}
}

func TestProcessGone(t *testing.T) {
	command := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	if _, err := Read(nil, "/proc", pid, Range{}); !errors.Is(err, netns.ErrProcessGone) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("Read: %v, want ErrProcessGone and the path", err)
	}
	if _, err := EphemeralPorts("/proc", pid); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("EphemeralPorts: %v, want ErrProcessGone", err)
	}
}

// TestReadLive compares with a sock_diag dump of the same namespace.
func TestReadLive(t *testing.T) {
	inNamespace(t, func(tid int) {
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		var config net.ListenConfig
		// DialTCP and DialUDP stay on this thread, which Dial may not.
		for _, address := range []string{"127.0.0.1:80", "[::]:8080", "[::1]:65535", "0.0.0.0:0"} {
			listener, err := config.Listen(context.Background(), "tcp", address)
			must(err)
			defer listener.Close()
			client, err := net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
			must(err)
			defer client.Close()
		}
		for _, address := range []string{"127.0.0.1:53", "[::]:5353", "[::1]:0", "0.0.0.0:0"} {
			server, err := net.ListenPacket("udp", address)
			must(err)
			defer server.Close()
			client, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
			must(err)
			defer client.Close()
		}
		must(os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 30000"), 0))
		ports, err := EphemeralPorts("/proc/self/task", tid)
		if err == nil || ports != (Range{}) {
			t.Errorf("a root without sys: %v, %v", ports, err)
		}

		ns, err := os.Open("/proc/thread-self/ns/net")
		must(err)
		defer ns.Close()
		conn, err := sockdiag.Dial(int(ns.Fd()), sockdiag.Options{UDPClients: true})
		must(err)
		defer conn.Close()
		want, err := conn.Dump(nil)
		must(err)
		got, err := Read(nil, "/proc/self/task", tid, Range{})
		must(err)
		for i := range want { // what is not in /proc
			want[i].Cookie, want[i].Cgroup, want[i].IPv6Only, want[i].AutoBound = inodeCookie(want[i].Inode), 0, false, false
		}
		byInode := func(a, b model.Socket) int { return cmp.Compare(a.Inode, b.Inode) }
		slices.SortFunc(want, byInode)
		slices.SortFunc(got, byInode)
		if len(want) != 8 || !slices.Equal(got, want) {
			t.Errorf("got\n%+v\nthe dump shows\n%+v", got, want)
		}
	})
}
