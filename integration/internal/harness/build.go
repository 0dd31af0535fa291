package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"portwatcher/integration/internal/docker"
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
		return build("./cmd/portwatcher", imageFolder+"/portwatcher")
	})
	workload = sync.OnceValues(func() (string, error) {
		return build("./integration/workload", "workload")
	})
)

// build compiles a static binary, as the image has it, and returns its path, which is
// given within the folder of this run.
func build(pkg, path string) (string, error) {
	directory, err := scratch()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(directory, path)
	return binary, docker.Build("portwatcher", pkg, binary)
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
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	return errors.Join(err, Default.RemoveLabelled(ctx, runLabel()))
}

// runLabel marks what this run of the tests makes.
func runLabel() string { return "test.portwatcher.run=" + run }

// labels are the options of docker that mark what this run of the tests makes.
var labels = []string{"--label", Label, "--label", runLabel()}
