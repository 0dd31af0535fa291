package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// waits are the two ways to wait: the arguments of each. The instance is of the
// test, and watches its containers.
func waits(t *testing.T) map[string][]string {
	t.Helper()
	target := loopback(9888)
	watch := harness.StartWatch(t, harness.WatchSpec{Arguments: []string{"--listen", target}})
	watch.WaitLog(t, target) // it serves
	return map[string][]string{"an instance": {"--server", "http://" + target}, "by itself": {"--local"}}
}

// waiting is a `portwatcher wait` that has not ended.
type waiting struct {
	command        *exec.Cmd
	stdout, stderr bytes.Buffer
}

func startWait(t *testing.T, arguments ...string) *waiting {
	t.Helper()
	w := &waiting{command: exec.Command(harness.Portwatcher(t), append([]string{"wait"}, arguments...)...)}
	w.command.Env, w.command.Stdout, w.command.Stderr = os.Environ(), &w.stdout, &w.stderr
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// end waits for its end.
func (w *waiting) end(t *testing.T) harness.Result {
	t.Helper()
	late := time.AfterFunc(2*harness.Patience, func() { _ = w.command.Process.Kill() })
	defer late.Stop()
	var exit *exec.ExitError
	if err := w.command.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return harness.Result{Stdout: w.stdout.String(), Stderr: w.stderr.String(), Status: w.command.ProcessState.ExitCode()}
}

func TestWait(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 2, []string{"--publish", "80"}, "--tcp", "0.0.0.0:80,127.0.0.1:9000")
	ways := waits(t)
	for way, arguments := range ways {
		with := func(more ...string) harness.Result {
			return startWait(t, append(more, arguments...)...).end(t)
		}
		result := with(web.Name+":80", web.Name+":9000/tcp", "--timeout", harness.Patience.String())
		if result.Status != 0 || result.Stderr != "" || strings.Count(result.Stdout, "is open: ") != 2 || strings.Count(result.Stdout, "\n") != 2 {
			t.Errorf("%s, open: status %d, %q %q; want a line for each", way, result.Status, result.Stdout, result.Stderr)
		}
		result = with(web.Name+":80", "--exposure", "published", "--quiet")
		if result.Status != 0 || result.Stderr+result.Stdout != "" {
			t.Errorf("%s, published: status %d, %q %q; want nothing", way, result.Status, result.Stdout, result.Stderr)
		}
		for name, asked := range map[string][]string{
			"never":         {web.Name + ":81", "--timeout", "3s"}, // the start takes one of them on a busy machine
			"one scan":      {web.Name + ":80/udp", "--timeout", "0"},
			"not published": {web.Name + ":9000", "--exposure", "published", "--timeout", "0"},
		} {
			result = with(asked...)
			problem := harness.OneLine(result.Stderr, asked[0], web.Name+" has open 80/tcp (published) 9000/tcp (loopback)")
			if result.Status != 1 || result.Stdout != "" || problem != "" {
				t.Errorf("%s, %s: status %d, %q; %s", way, name, result.Status, result.Stdout, problem)
			}
		}
		result = with(harness.Name(t, "nobody")+":1", "--timeout", "0")
		if problem := harness.OneLine(result.Stderr, "no running container matches"); result.Status != 1 || problem != "" {
			t.Errorf("%s, no container: status %d; %s", way, result.Status, problem)
		}
	}
}

// What is not there yet is waited for: a port, and a container.
func TestWaitUntilLater(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	early := idle(t, "early")
	all := map[string]*waiting{}
	for way, arguments := range waits(t) {
		all[way] = startWait(t, append(arguments, early.Name+":80", harness.Name(t, "late")+":53/udp", "--timeout", harness.Patience.String())...)
	}
	early.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	start(t, "late", 1, nil, "--udp", "0.0.0.0:53")
	for way, one := range all {
		if result := one.end(t); result.Status != 0 || strings.Count(result.Stdout, "\n") != 2 {
			t.Errorf("%s: status %d, %q %q; want two open ports", way, result.Status, result.Stdout, result.Stderr)
		}
	}
}

// With a count, one of several replicas is not enough.
func TestWaitForReplicas(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	first, second := idle(t, "replica-1"), idle(t, "replica-2")
	both := harness.Name(t, "replica-*") + ":80"
	ways := waits(t)
	first.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	for way, arguments := range ways {
		if result := startWait(t, append(arguments, both, "--timeout", harness.Patience.String())...).end(t); result.Status != 0 {
			t.Errorf("%s, one is enough: status %d, %s", way, result.Status, result.Stderr)
		}
		for _, count := range []string{"2", "all"} {
			result := startWait(t, append(arguments, both, "--count", count, "--timeout", "0")...).end(t)
			if problem := harness.OneLine(result.Stderr, "is not open in ", second.Name+" has no port open"); result.Status != 1 || problem != "" {
				t.Errorf("%s, --count %s: status %d; %s", way, count, result.Status, problem)
			}
		}
	}
	late := map[string]*waiting{}
	for way, arguments := range ways {
		for _, count := range []string{"2", "all"} {
			late[way+", --count "+count] = startWait(t, append(arguments, both, "--count", count, "--timeout", harness.Patience.String())...)
		}
	}
	second.Exec(t, "listen", "--tcp", "0.0.0.0:80")
	for way, one := range late {
		if result := one.end(t); result.Status != 0 || !strings.Contains(result.Stdout, second.Name) {
			t.Errorf("%s: status %d, %q %q; want both", way, result.Status, result.Stdout, result.Stderr)
		}
	}
}

func TestWaitUsage(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for text, arguments := range map[string][]string{
		"no port to wait for": nil,
		`"web"`:               {"web"},
		`"web:0"`:             {"web:0"},
		`"web:80/TCP"`:        {"web:80/TCP"},
		`"-1s"`:               {"web:80", "--timeout", "-1s"},
		`"public"`:            {"web:80", "--exposure", "public"},
		"http://HOST:PORT":    {"web:80", "--server", "localhost:9888"},
	} {
		result := startWait(t, arguments...).end(t)
		if problem := harness.OneLine(result.Stderr, text, "allowed"); result.Status != 2 || problem != "" || result.Stdout != "" {
			t.Errorf("%q: status %d, want 2; %s", arguments, result.Status, problem)
		}
	}
}
