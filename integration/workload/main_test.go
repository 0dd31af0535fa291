package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/testutil/truth"
)

// TestMain runs a command of the workload where the test binary is started as
// one: the children that the commands start are this same binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
	}
	os.Exit(m.Run())
}

// runFacts runs a command to its end and returns its facts.
func runFacts(t *testing.T, args ...string) []truth.Fact {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, stderr bytes.Buffer
	if status := dispatch(ctx, args, &out, &stderr); status != 0 {
		t.Fatalf("workload %v: exit status %d: %s", args, status, stderr.String())
	}
	facts, err := truth.ReadFacts(out.String())
	if err != nil {
		t.Fatal(err)
	}
	return facts
}

func count(facts []truth.Fact, action truth.Action) int {
	n := 0
	for _, f := range facts {
		if f.Action == action {
			n++
		}
	}
	return n
}

func TestWrongArguments(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"listen", "nothing to listen on"},
		{"listen --tcp 1.2.3.4", `"1.2.3.4": want ADDRESS:PORT`},
		{"listen --tcp :80 --listen-without-bind", "the port must be 0"},
		{"listen --tcp :0 --udp :0 --listen-without-bind", "applies to TCP only"},
		{"listen --tcp :0 --reuseport 2", "the port must be named"},
		{"listen --tcp :80 --leave-after 1s", "needs --reuseport 2"},
		{"listen --tcp :80 --reuseport 2 --leave-after 1s --children 1", "cannot be combined"},
		{"listen --tcp :80 --handover", "needs --children"},
		{"listen --tcp :80 --children 1 --orphan --handover", "neither --handover nor --for"},
		{"listen --tcp :80 --for -1s", "--for -1s: want 0 to 24h"},
		{"burst --base-port 65530 --count 20", "the last port would be 65549"},
		{"burst --protocol sctp", `protocol "sctp": allowed are tcp, udp`},
		{"transient --address nowhere", `--address "nowhere": want an IP address`},
		{"transient 80", `unexpected argument "80"`},
		{"kill-port", "--port 0: want 1 to 65535"},
		{"connections --rate 10", "--rate 10: want 1000 to 50000"},
		{"dance", `unknown command "dance"`},
		{"", "usage:"},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stderr bytes.Buffer
			status := dispatch(t.Context(), strings.Fields(test.args), io.Discard, &stderr)
			if status != 2 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit status %d, %q; want 2 and %q", status, stderr.String(), test.want)
			}
			if lines := strings.Count(stderr.String(), "\n"); lines != 1 && test.args != "" {
				t.Errorf("%d lines of error, want 1: %q", lines, stderr.String())
			}
		})
	}
}

func TestFactIsOneLine(t *testing.T) {
	var out bytes.Buffer
	at := time.Date(2026, 11, 22, 18, 36, 28, 123456789, time.FixedZone("", 3600))
	if err := newRecorder(&out).record(truth.Fact{Action: truth.Opened, Time: at, After: at, Port: 80}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 1 || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("got %q, want one line", out.String())
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["time"] != "2026-11-22T17:36:28.123456789Z" || got["pid"] != float64(os.Getpid()) || got["uid"] != float64(os.Geteuid()) {
		t.Errorf("got %v", got)
	}
}
