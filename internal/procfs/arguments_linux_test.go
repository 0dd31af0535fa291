package procfs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"portwatcher/internal/testutil/kernel"
)

func TestArgumentsOfOneCommandLine(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"python3\x00/app/worker.py\x00--queue\x00mail\x00", "/app/worker.py --queue mail"},
		{"node\x00", ""}, {"", ""},
		{"nginx: worker process\x00\x00\x00\x00", ""},
		{"sh\x00-c\x00a b\x00", "-c a b"},
		{"a\x00\x00b\x00", " b"},

		{"a\x00--password=hunter2\x00-x\x00", "--password=*** -x"},
		{"a\x00--db-password\x00hunter2\x00-x\x00", "--db-password *** -x"},
		{"a\x00--requirepass\x00hunter2\x00", "--requirepass ***"},
		{"a\x00-pwd\x00hunter2\x00", "-pwd ***"},
		{"a\x00--API_KEY=x\x00--accessKey\x00y\x00", "--API_KEY=*** --accessKey ***"},
		{"a\x00-Dspring.datasource.password=x y\x00b\x00", "-Dspring.datasource.password=*** b"},
		{"a\x00--auth-token\x00--client-secret\x00x\x00y\x00", "--auth-token *** *** y"},
		{"a\x00host=db password='a b' user=c\x00", "host=db password=***"},
		{"a\x00{\"token\": \"x\"}\x00", `{"token":***`},
		{"a\x00-H\x00Authorization: Bearer x\x00", "-H Authorization:***"},
		{"a\x00https://h/?q=1&token=x\x00", "https://h/?q=1&token=***"},
		{"a\x00postgres://user:p@ss/w:rd@db:5432/shop\x00", "postgres://***@db:5432/shop"},
		{"a\x00amqp://token@mq\x00--bind=0.0.0.0:80\x00", "amqp://***@mq --bind=0.0.0.0:80"},
		{"a\x00redis://u:p@h?password=x\x00", "redis://***@h?password=***"},
		{"a\x00http://u:secret:x@h\x00", "http://***@h"},
		{"a\x00--password\x00", "--password"},
	} {
		if got := arguments(test.line); got != test.want {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
}

func TestArgumentsAreBounded(t *testing.T) {
	long := arguments("a\x00" + strings.Repeat("é", maxCommandLine/4) + "\x00")
	if len(long) > maxArguments || len(long) < maxArguments-4 || !strings.HasSuffix(long, "é…") || !utf8.ValidString(long) {
		t.Errorf("%d bytes: %q", len(long), long)
	}
	// The argument that was not read to its end is left out: it could be a secret.
	cut := ("a\x00b\x00x://user:" + strings.Repeat("p", maxCommandLine))[:maxCommandLine]
	if got := arguments(cut); got != "b" {
		t.Errorf("%q, want b", got)
	}
}

func TestArgumentsOfProcesses(t *testing.T) {
	child := exec.Command("sleep", "600", "0.5")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.End(t, child) })
	kernel.Await(t, "the arguments", func() string {
		if got := Arguments("/proc", child.Process.Pid); got != "600 0.5" {
			return got
		}
		return ""
	})
	if got := Arguments("/proc", kernel.Mainless(t, os.Stdin).Process.Pid); got != "--of-a-thread" {
		t.Errorf("without a main thread: %q", got)
	}
	if got := Arguments("/proc", 1<<30); got != "" {
		t.Errorf("of no process: %q", got)
	}
}

func FuzzArguments(f *testing.F) {
	f.Add("python3\x00a.py\x00--token\x00", "x")
	f.Fuzz(func(t *testing.T, line, secret string) {
		if got := arguments(line); len(got) > maxArguments {
			t.Errorf("%d bytes", len(got))
		}
		const mark = "hunter2"
		if got := arguments("a\x00--password\x00" + mark + secret); strings.Contains(got, mark) && !strings.Contains(secret, mark) {
			t.Errorf("%q is shown", got)
		}
	})
}
