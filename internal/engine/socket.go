package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"
)

const socketScheme = "unix://"

// errSocketReplaced means that the engine has made its socket anew, while the old one is
// mounted here, and that the new one cannot be reached.
var errSocketReplaced = errors.New("the engine has made its socket anew, and the old one is mounted here")

// dialer connects to a Unix socket, also where the engine has made it anew and the old one
// is mounted here. It is safe for concurrent use.
type dialer struct {
	// replaced is [Options.Replaced], or nil.
	replaced func(path string) (string, error)
	log      logrus.FieldLogger
	once     sync.Once // for the line that reports the new path
}

// dial connects to the socket at path. Its error is errSocketReplaced where no later
// attempt can succeed.
func (d *dialer) dial(ctx context.Context, path string) (net.Conn, error) {
	var network net.Dialer
	connection, err := network.DialContext(ctx, "unix", path)
	if d.replaced == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		return connection, err
	}
	found, searchErr := d.replaced(path)
	switch {
	case searchErr != nil:
		return nil, fmt.Errorf("%w: %w", errSocketReplaced, searchErr)
	case found == "":
		return nil, err
	}
	connection, err = network.DialContext(ctx, "unix", found)
	switch {
	case err == nil:
		d.once.Do(func() {
			d.log.Warnf("The engine has made its socket anew, and the old one is mounted at %s. portwatcher connects to the new one, %s.", path, found)
		})
	case !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EAGAIN) && ctx.Err() == nil:
		err = fmt.Errorf("%w: %w", errSocketReplaced, err)
	}
	return connection, err
}
