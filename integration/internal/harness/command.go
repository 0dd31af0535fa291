package harness

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Result is what a command of portwatcher that ends by itself did.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Run runs portwatcher on the host with these settings added to the
// environment ("NAME=value") and waits for its end.
func Run(t testing.TB, environment []string, arguments ...string) Result {
	t.Helper()
	command := exec.Command(Portwatcher(t), arguments...)
	command.Env = append(os.Environ(), environment...)
	return finish(t, command)
}

// RunInContainer runs portwatcher in its container with these rights (see
// [Rights]) and waits for its end.
func RunInContainer(t testing.TB, rights []string, arguments ...string) Result {
	t.Helper()
	return finish(t, inContainer(t, "self-"+Name(t, "command"), Pattern(t), rights, arguments))
}

func finish(t testing.TB, command *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(Patience, func() { _ = command.Process.Kill() })
	err := command.Wait()
	if !late.Stop() {
		t.Fatalf("%s: is running after %v\n%s%s", strings.Join(command.Args, " "), Patience, &stdout, &stderr)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// OneLine returns what is wrong with a message that must be a single line with all of the
// texts in it, and "" if nothing is.
func OneLine(message string, texts ...string) string {
	trimmed := strings.TrimSuffix(message, "\n")
	if trimmed == "" || strings.Contains(trimmed, "\n") {
		return "want one line: " + message
	}
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(trimmed), strings.ToLower(text)) {
			return "want " + text + " in it: " + trimmed
		}
	}
	return ""
}
