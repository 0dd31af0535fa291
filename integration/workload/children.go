package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"portwatcher/internal/testutil/truth"

	"golang.org/x/sys/unix"
)

// holdCommand is the command a child runs: it holds the descriptors from
// firstInherited on until its standard input ends, which is also when its
// parent dies; an orphan, until SIGTERM.
const (
	holdCommand    = "hold-inherited"
	firstInherited = 3
)

// A family is the child processes that hold the parent's sockets.
type family struct {
	members []*child
}

type child struct {
	process *exec.Cmd
	stdin   io.WriteCloser
}

// startChildren starts the children and returns once each of them holds every
// socket, with one "held" fact for each child and socket.
func startChildren(c *listenConfig, sockets []*socket, facts *recorder) (_ *family, err error) {
	f := &family{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	for range c.children {
		before := time.Now()
		member, err := startChild(c, sockets)
		if err != nil {
			return nil, err
		}
		f.members = append(f.members, member.child)
		if err := member.waitReady(); err != nil {
			return nil, err
		}
		for _, s := range sockets {
			held := s.opened
			held.Action, held.Time, held.After = truth.Held, before, time.Now()
			uid := uint32(os.Geteuid())
			if c.uid >= 0 {
				uid = uint32(c.uid)
			}
			held.PID, held.UID = member.child.process.Process.Pid, &uid
			if err := facts.record(held); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// A newborn is a child that may not hold the sockets yet.
type newborn struct {
	child  *child
	stdout io.Reader
}

func startChild(c *listenConfig, sockets []*socket) (*newborn, error) {
	// By its own path, not /proc/self/exe: that would name the process "exe".
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's path: %w", err)
	}
	cmd := exec.Command(self, holdCommand, "--count", strconv.Itoa(len(sockets)), "--orphan="+strconv.FormatBool(c.orphan))
	if !c.orphan { // which would keep docker exec waiting for its end
		cmd.Stderr = os.Stderr
	}
	if c.uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.uid), Gid: uint32(c.uid)}}
	}
	for _, s := range sockets {
		// The copy belongs to the file, which must not close the original.
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("copy the descriptor of port %d: %w", s.opened.Port, err)
		}
		file := os.NewFile(uintptr(fd), "socket")
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to a child process: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe from a child process: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a child process with user id %d (changing the user needs CAP_SETUID and CAP_SETGID): %w", c.uid, err)
	}
	return &newborn{&child{cmd, stdin}, stdout}, nil
}

// waitReady waits for the child's line that it holds the sockets.
func (n *newborn) waitReady() error {
	if _, err := bufio.NewReader(n.stdout).ReadString('\n'); err != nil {
		return fmt.Errorf("wait for child process %d to hold the sockets: %w", n.child.process.Process.Pid, err)
	}
	return nil
}

// stop ends every child and waits for it.
func (f *family) stop() error {
	var err error
	for _, member := range f.members {
		err = errors.Join(err, member.stdin.Close())
	}
	for _, member := range f.members {
		if waitErr := member.process.Wait(); waitErr != nil {
			err = errors.Join(err, fmt.Errorf("child process %d: %w", member.process.Process.Pid, waitErr))
		}
	}
	f.members = nil
	return err
}

// handOver closes the parent's copies, so that the children are the only holders, waits, and
// ends the children. The sockets close with the last.
func (f *family) handOver(ctx context.Context, hold time.Duration, sockets []*socket, facts *recorder) error {
	var err error
	for _, s := range sockets {
		_, closeErr := s.close()
		err = errors.Join(err, closeErr)
	}
	if err != nil {
		return errors.Join(err, f.stop())
	}
	pauseOrForever(ctx, hold)
	before := time.Now()
	err = f.stop()
	after := time.Now()
	for _, s := range sockets {
		closed := s.opened
		closed.Action, closed.Time, closed.After = truth.Closed, before, after
		err = errors.Join(err, facts.record(closed))
	}
	return err
}

// runHold is the child's side.
func runHold(ctx context.Context, args []string, _ *recorder) error {
	set := newFlags(holdCommand)
	count := set.number("count", 0, 1, 1<<20, "inherited sockets")
	orphan := set.Bool("orphan", false, "hold them until SIGTERM")
	if err := set.parse(args); err != nil {
		return err
	}
	for fd := firstInherited; fd < firstInherited+*count; fd++ {
		if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return fmt.Errorf("inherited descriptor %d is no socket; this command is started by `workload listen --children`: %w", fd, err)
		}
	}
	if _, err := fmt.Println("holding"); err != nil {
		return fmt.Errorf("report to the parent: %w", err)
	}
	if *orphan {
		<-ctx.Done()
		return nil
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the parent: %w", err)
	}
	return nil
}
