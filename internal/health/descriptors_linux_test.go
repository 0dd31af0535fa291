package health

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

const addressVariable = "PORTWATCHER_TEST_HEALTH"

// TestMain runs [withoutDescriptors] in the process that a test starts for it.
func TestMain(m *testing.M) {
	if address := os.Getenv(addressVariable); address != "" {
		withoutDescriptors(address)
		return
	}
	os.Exit(m.Run())
}

// withoutDescriptors serves. At each line on standard input it takes every free
// descriptor, then gives them back.
func withoutDescriptors(address string) {
	log := logrus.New()
	log.SetOutput(os.Stdout)
	go Serve(context.Background(), address, func() error { return nil }, log)
	var taken []int
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		if len(taken) > 0 {
			for _, fd := range taken {
				unix.Close(fd)
			}
			taken = nil
			continue
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
			panic(err)
		}
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			if err != nil {
				break
			}
			taken = append(taken, fd)
		}
		fmt.Println("taken")
	}
}

// A moment without descriptors costs the checks of that moment, and one line in
// the log.
func TestWithoutDescriptors(t *testing.T) {
	address := filepath.Join(t.TempDir(), "health.sock")
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), addressVariable+"="+address)
	child.Stderr = os.Stderr
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.End(t, child) })
	answers(t, address)
	lines := bufio.NewScanner(output)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("the process writes %q, error %v; want %q", lines.Text(), lines.Err(), want)
		}
	}
	fmt.Fprintln(input)
	next("taken")
	checked := make(chan error, 1)
	go func() { checked <- Check(t.Context(), address) }()
	next(unix.EMFILE.Error())
	fmt.Fprintln(input)
	next("again") // and no other line before
	<-checked     // its answer may have come in time
	answers(t, address)
}
