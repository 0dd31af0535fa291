package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"
)

// ConnectError reports that an engine cannot be reached: which, why, and what to
// do. It is one line.
type ConnectError struct {
	Host string
	// Remedy is a clause without a capital letter or a full stop.
	Remedy string
	Err    error
}

// Error implements error.
func (e *ConnectError) Error() string {
	return "Docker Engine at " + e.Host + ": " + e.Err.Error() + " (" + e.Remedy + ")"
}

// Unwrap returns the cause, which wraps the errno where there is one.
func (e *ConnectError) Unwrap() error { return e.Err }

func newConnectError(host string, err error) *ConnectError {
	return &ConnectError{Host: host, Remedy: remedy(host, err), Err: err}
}

// remedy returns what a user can do about a failed connection.
func remedy(host string, err error) string {
	path, socket := strings.CutPrefix(host, socketScheme)
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.Is(err, errSocketReplaced):
		return "portwatcher's container has to start again, which mounts the new one: let it have a restart policy, or mount the socket's folder"
	case socket && errors.Is(err, syscall.ENOENT):
		return "mount the socket into the container, as in -v " + path + ":" + path + ", or set DOCKER_HOST"
	case socket && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)):
		return "run as root or as a member of the group that owns the socket, and let SELinux or AppArmor pass it"
	case socket && errors.Is(err, syscall.ECONNREFUSED):
		return "start the engine; if it runs, mount its socket and not a folder of that name"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start the engine, or correct the port in DOCKER_HOST"
	case errors.As(err, &dns):
		return "correct the host name in DOCKER_HOST"
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &record),
		strings.Contains(err.Error(), "tls: "),
		strings.Contains(err.Error(), "HTTP response to HTTPS client"),
		strings.Contains(err.Error(), "malformed HTTP response"):
		return "check DOCKER_CERT_PATH and DOCKER_TLS_VERIFY against the engine's TLS settings"
	case errors.Is(err, context.DeadlineExceeded):
		return "the engine hangs or is cut off: read its log"
	}
	return "check that a Docker Engine answers there"
}
