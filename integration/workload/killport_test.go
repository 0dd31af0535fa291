package main

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

func TestHoldersFindsThisProcess(t *testing.T) {
	for _, o := range []options{{protocol: model.TCP}, {protocol: model.TCP, mptcp: true}, {protocol: model.UDP}} {
		s, err := open(netip.MustParseAddrPort("127.0.0.1:0"), o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := holders("/proc", o.protocol, s.opened.Port)
		if err != nil || !slices.Equal(got, []int{os.Getpid()}) {
			t.Errorf("%+v: got %v, %v; want this process, %d", o, got, err, os.Getpid())
		}
		if _, err := s.close(); err != nil {
			t.Fatal(err)
		}
		if got, err := holders("/proc", o.protocol, s.opened.Port); err != nil || len(got) > 0 {
			t.Errorf("%+v, closed: got %v, %v; want none", o, got, err)
		}
	}
}

func TestVictims(t *testing.T) {
	for _, test := range []struct {
		holders []int
		force   bool
		want    []int
		refused bool
		err     string
	}{
		{nil, false, nil, false, "no process"},
		{[]int{1}, false, nil, false, "--force"},
		{[]int{1}, true, []int{1}, false, ""},
		{[]int{1, 7}, false, []int{7}, true, ""},
		{[]int{1, 7}, true, []int{7}, true, ""},
		{[]int{7, 8}, false, []int{7, 8}, false, ""},
	} {
		got, refused, err := victims(test.holders, model.TCP, 80, test.force)
		if !slices.Equal(got, test.want) || refused != test.refused {
			t.Errorf("%v, force %v: got %v, %v; want %v, %v", test.holders, test.force, got, refused, test.want, test.refused)
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%v, force %v: error %v, want %q", test.holders, test.force, err, test.err)
		}
	}
}

// startReady starts a shell that prints one line when it is ready.
func startReady(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestEnd(t *testing.T) {
	for _, test := range []struct {
		name, script string
		killed       bool
	}{
		{"obeys SIGTERM", "echo ready; exec sleep 60", false},
		{"ignores SIGTERM", "trap '' TERM; echo ready; exec sleep 60", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := startReady(t, test.script)
			killed, err := end(context.Background(), cmd.Process.Pid, 300*time.Millisecond)
			if err != nil || killed != test.killed {
				t.Errorf("killed %v, %v; want %v", killed, err, test.killed)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the process ended by itself, want it ended by a signal")
			}
		})
	}
}
