package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// scratch is a folder of this run of the tests; [Main] removes it.
var scratch = sync.OnceValues(func() (string, error) {
	return os.MkdirTemp("", "portwatcher-test-")
})

// module is the folder of the module under test.
var module = sync.OnceValues(func() (string, error) {
	output, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(output))), nil
})

// imageFolder is where the Dockerfile's stage prebuilt takes the image's files
// from, within the folder that is its build context.
const imageFolder = "build/image"

var (
	portwatcher = sync.OnceValues(func() (string, error) {
		if givenBinary != "" {
			return copyBinary(givenBinary)
		}
		return build("portwatcher/cmd/portwatcher", imageFolder+"/portwatcher")
	})
	workload = sync.OnceValues(func() (string, error) {
		return build("portwatcher/integration/workload", "workload")
	})
)

// build compiles a static binary, as the image has it, and returns its path,
// which is given within the folder of this run.
func build(target, path string) (string, error) {
	directory, err := scratch()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(directory, path)
	command := exec.Command("go", "build", "-trimpath", "-o", binary, target)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", target, err, output)
	}
	return binary, nil
}

// copyBinary puts a binary that is there already where a built one would be.
func copyBinary(from string) (string, error) {
	directory, err := scratch()
	if err != nil {
		return "", err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return "", fmt.Errorf("read PORTWATCHER_BINARY: %w", err)
	}
	binary := filepath.Join(directory, imageFolder, "portwatcher")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", err
	}
	return binary, os.WriteFile(binary, content, 0o755)
}

// Portwatcher builds portwatcher, once in a run of the tests, and returns the
// path of the binary. PORTWATCHER_BINARY names one to test instead.
func Portwatcher(t testing.TB) string {
	t.Helper()
	binary, err := portwatcher()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// Workload builds the workload, once in a run of the tests, and returns the path of the
// binary, for what runs in no container.
func Workload(t testing.TB) string {
	t.Helper()
	binary, err := workload()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// cleanUp ends and removes what this run made on the default engine, and its
// folder.
func cleanUp() error {
	running.Range(func(group, _ any) bool {
		_ = syscall.Kill(-group.(int), syscall.SIGKILL) // it may have just ended
		return true
	})
	directory, err := scratch()
	if err == nil {
		err = os.RemoveAll(directory)
	}
	if available() != "" {
		return err
	}
	mine := []string{"--quiet", "--filter", "label=" + runLabel()}
	removeWith := func(arguments ...string) func(...string) error {
		return func(ids ...string) error {
			_, err := Default.Docker(append(arguments, ids...)...)
			return err
		}
	}
	for _, kind := range []struct {
		list   []string
		remove func(ids ...string) error
	}{
		{[]string{"ps", "--all"}, Default.Remove},
		{[]string{"network", "ls"}, removeWith("network", "rm")},
		{[]string{"volume", "ls"}, removeWith("volume", "rm")},
		{[]string{"images"}, removeWith("rmi", "--force")},
	} {
		found, listErr := Default.Docker(append(kind.list, mine...)...)
		if listErr != nil {
			err = errors.Join(err, listErr)
			continue
		}
		if ids := strings.Fields(found); len(ids) > 0 {
			err = errors.Join(err, kind.remove(ids...))
		}
	}
	return err
}

// runLabel marks what this run of the tests makes.
func runLabel() string { return "test.portwatcher.run=" + run }
