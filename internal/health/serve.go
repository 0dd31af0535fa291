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

	"github.com/sirupsen/logrus"
)

// The wait after an error, doubled for each one that follows. The longest is
// less than the timeout of [Check], so that a check does not fail after the
// trouble is over.
const (
	firstWait   = 10 * time.Millisecond
	longestWait = time.Second
)

// checkInterval is how often Serve checks that the file of its socket is there.
const checkInterval = 10 * time.Second

// Serve answers on the socket until ctx ends. state returns nil while the
// instance is ready; Serve calls it from several goroutines.
//
// Serve ends with ctx only. Where the socket cannot be used (another instance
// holds it, no descriptor is free, its file has been removed) it tries again
// with growing waits. The log reports the first error of a series, and its end.
func Serve(ctx context.Context, address string, state func() error, log logrus.FieldLogger) {
	s := &server{address: address, state: state, log: log, check: checkInterval}
	s.serve(ctx)
}

// server is the state of one Serve. It belongs to Serve's goroutine.
type server struct {
	address   string
	state     func() error
	log       logrus.FieldLogger
	check     time.Duration // how often the file of the socket is checked
	answering sync.WaitGroup

	wait    time.Duration // before the last try; 0 while all works
	failing bool          // the log has reported an error, and not its end
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

// listenAndAnswer opens the socket and answers until the socket is of no use any
// more, or ctx ends.
func (s *server) listenAndAnswer(ctx context.Context) error {
	listener, err := listen(s.address)
	if err != nil {
		return err
	}
	defer listener.Close()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
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
		s.log.Warnf("Health checks are not answered at %s: %v. This is tried again; where another portwatcher is running, --health-socket names another socket.", s.address, err)
	}
	s.wait = max(firstWait, min(2*s.wait, longestWait))
	select {
	case <-ctx.Done():
	case <-time.After(s.wait):
	}
}

func (s *server) works() {
	s.wait = 0
	if s.failing {
		s.failing = false
		s.log.Infof("Health checks are answered at %s again.", s.address)
	}
}

// temporary returns whether a listener can accept again after an error.
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

// listen opens the socket. The file that an instance left behind when it was
// killed is replaced: nobody answers there.
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

// deserted returns whether address is a socket that nobody listens on.
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
