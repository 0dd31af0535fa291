package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/clock"
)

// The wait after an error doubles from firstWait to longestWait, which is less than the
// timeout of [Check]: a check does not fail after the trouble is over.
const (
	firstWait   = 10 * time.Millisecond
	longestWait = time.Second
)

// checkInterval is how often Serve checks that the file of its socket is there.
const checkInterval = 10 * time.Second

// Serve answers on the socket until ctx ends. state returns nil while the
// instance is ready; Serve calls it from several goroutines. Where the socket cannot be
// used (another instance holds it, no descriptor is free, its file has been removed) it
// tries again with growing waits. The log reports the first error of a series, and its
// end.
func Serve(ctx context.Context, address string, state func() error, log logrus.FieldLogger) {
	newServer(address, state, log).serve(ctx)
}

func newServer(address string, state func() error, log logrus.FieldLogger) *server {
	wait := backoff.ExponentialBackOff{InitialInterval: firstWait, Multiplier: 2, MaxInterval: longestWait}
	return &server{address: address, state: state, log: log, check: checkInterval, wait: wait}
}

// server is the state of one Serve. It belongs to Serve's goroutine.
type server struct {
	address   string
	state     func() error
	log       logrus.FieldLogger
	check     time.Duration // how often the file of the socket is checked
	answering sync.WaitGroup

	wait    backoff.ExponentialBackOff
	failing bool // the log has reported an error, and not its end
}

func (s *server) serve(ctx context.Context) {
	defer s.answering.Wait()
	for ctx.Err() == nil {
		err := s.listenAndAnswer(ctx)
		if ctx.Err() == nil {
			s.failed(ctx, err)
		}
	}
}

// listenAndAnswer opens the socket and answers until the socket fails or ctx ends.
func (s *server) listenAndAnswer(ctx context.Context) error {
	listener, err := listen(s.address)
	if err != nil {
		return err
	}
	defer listener.Close()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		listener.Close()
		close(closed)
	})
	defer func() {
		if !stop() { // a second Close would not wait until the socket is closed
			<-closed
		}
	}()
	file, err := fileOf(s.address)
	if err != nil {
		return err
	}
	s.works()
	for ctx.Err() == nil {
		if file != nil { // an abstract socket cannot be removed
			if err := listener.SetDeadline(time.Now().Add(s.check)); err != nil {
				return err
			}
		}
		conn, err := listener.Accept()
		switch {
		case err == nil:
			s.works()
			s.answering.Go(func() { answer(conn, s.state()) })
		case errors.Is(err, os.ErrDeadlineExceeded):
			if now, err := fileOf(s.address); err != nil || !os.SameFile(now, file) {
				listener.SetUnlinkOnClose(false) // it may be another instance's file
				return errors.Join(errors.New("the file of the socket has been removed"), err)
			}
		case temporary(err):
			s.failed(ctx, err)
		default:
			return err
		}
	}
	return nil
}

// failed reports the first error of a series, and waits.
func (s *server) failed(ctx context.Context, err error) {
	if !s.failing && ctx.Err() == nil {
		s.failing = true
		s.log.Warnf("Health checks are not answered at %s: %v. portwatcher tries again; where another portwatcher is running, --health-socket names another socket.", s.address, err)
	}
	clock.Sleep(ctx, s.wait.NextBackOff())
}

func (s *server) works() {
	s.wait.Reset()
	if s.failing {
		s.failing = false
		s.log.Infof("Health checks are answered at %s again.", s.address)
	}
}

// temporary reports whether a listener can accept again after an error.
// Source: accept(2).
func temporary(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EPERM, syscall.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// listen opens the socket, and replaces the file of an instance that was killed.
func listen(address string) (*net.UnixListener, error) {
	at := &net.UnixAddr{Name: address, Net: "unix"}
	listener, err := net.ListenUnix("unix", at)
	if errors.Is(err, syscall.EADDRINUSE) && !abstract(address) && deserted(address) {
		if err := os.Remove(address); err != nil {
			return nil, fmt.Errorf("replace the socket of an instance that has ended: %w", err)
		}
		listener, err = net.ListenUnix("unix", at)
	}
	return listener, err
}

// deserted reports whether address is a socket without a listener.
func deserted(address string) bool {
	info, err := os.Lstat(address)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.DialTimeout("unix", address, timeout)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// fileOf returns the file of a socket, nil for an abstract one.
func fileOf(address string) (os.FileInfo, error) {
	if abstract(address) {
		return nil, nil
	}
	return os.Lstat(address)
}

func abstract(address string) bool { return strings.HasPrefix(address, "@") }
