package notify

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
)

// deadline is how long a condition of a test may take on a busy machine.
const deadline = 30 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s not yet: %s", deadline, what)
		}
	}
}

// command returns the path of a command, or skips the test.
func command(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		kernel.Skip(t, "it needs "+name+", which is Debian's package "+debian)
	}
	return path
}

// freePort returns an address of the loopback interface at which nothing listens.
func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// writings are what a daemon writes.
type writings struct {
	mutex sync.Mutex
	bytes.Buffer
}

// Write implements [io.Writer].
func (o *writings) Write(p []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.Buffer.Write(p)
}

func (o *writings) text() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.String()
}

// daemon starts a program, in a group of processes of its own, until stop or the end of the test.
func daemon(t testing.TB, name string, arguments ...string) (log *writings, stop func(syscall.Signal)) {
	t.Helper()
	log = &writings{}
	c := exec.Command(name, arguments...)
	c.Stdout, c.Stderr, c.SysProcAttr = log, log, &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = deadline / 3 // for what its children hold open
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // it ends by a signal
		close(ended)
	}()
	var once sync.Once
	stop = func(signal syscall.Signal) {
		once.Do(func() {
			_ = syscall.Kill(-c.Process.Pid, signal)
			select {
			case <-ended:
			case <-time.After(deadline):
				_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
				t.Errorf("%s did not end with %s", name, signal)
				<-ended
			}
		})
	}
	t.Cleanup(func() {
		stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, log.text())
		}
	})
	return log, stop
}

// writeFile writes a file of a test.
func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.TrimLeft(content, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
