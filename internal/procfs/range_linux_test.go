package procfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEphemeralPorts reads the range of another process's namespace.
func TestEphemeralPorts(t *testing.T) {
	inNamespace(t, func(int) {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 30000"), 0); err != nil {
			panic(err)
		}
		command := exec.Command("sleep", "60")
		if err := command.Start(); err != nil {
			panic(err)
		}
		defer func() { _ = command.Wait() }() // it was killed
		defer func() { _ = command.Process.Kill() }()
		got, err := EphemeralPorts("/proc", command.Process.Pid)
		if err != nil || got != (Range{20000, 30000}) {
			t.Errorf("got %v, %v, want 20000 to 30000", got, err)
		}
	})
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	before := namespaceOf(t, os.Getpid())
	got, err := EphemeralPorts("/proc", os.Getpid())
	if want := strings.Join(strings.Fields(string(text)), " "); err != nil || fmt.Sprint(got.First, got.Last) != want {
		t.Errorf("this namespace: %v, %v, want %s", got, err, want)
	}
	if after := namespaceOf(t, os.Getpid()); after != before {
		t.Errorf("the process moved from %s to %s", before, after)
	}
}

func namespaceOf(t *testing.T, pid int) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadRange(t *testing.T) {
	for text, want := range map[string]Range{
		"32768\t60999\n": {32768, 60999}, "1 65535": {1, 65535}, "9 9": {9, 9},
		"": {}, "1": {}, "2 1": {}, "1 65536": {}, "a b": {}, "1 2 3": {},
	} {
		path := filepath.Join(t.TempDir(), "range")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readRange(path)
		var parse *ParseError
		if got != want || (want == Range{}) != errors.As(err, &parse) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}
