package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"sync"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// maxSMTP bounds what is read from an SMTP server in one session, in bytes. Its answers are lines,
// which the library reads whole.
const maxSMTP = 1 << 20

// mailSession is a connection to an SMTP server for one try. It ends with its context, at
// whatever step it is.
type mailSession struct {
	ctx    context.Context
	server smtpServer
	config *tls.Config

	client  *gomail.Client
	session *smtp.Client
	end     func() // closes the connection; nil before there is one
}

func (s *mailSession) close() {
	if s.session != nil && s.ctx.Err() == nil {
		_ = s.client.CloseWithSMTPClient(s.session) // QUIT; what was taken stays so
	}
	if s.end != nil {
		s.end()
	}
}

// begin connects, with TLS and user as the server's settings have it.
func (s *mailSession) begin() error {
	options := []gomail.Option{
		gomail.WithPort(s.server.port), gomail.WithTimeout(Timeout), gomail.WithTLSConfig(s.config), gomail.WithDialContextFunc(s.dial),
		gomail.WithTLSPolicy(gomail.NoTLS),
	}
	if s.server.tls == mailStartTLS {
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if s.server.username != "" {
		// There is TLS, or the settings would have been refused.
		options = append(options, gomail.WithUsername(s.server.username), gomail.WithPassword(s.server.password), gomail.WithOpportunisticSMTPAuth(
			gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin, gomail.SMTPAuthCramMD5))
	}
	var err error
	if s.client, err = gomail.NewClient(s.server.host, options...); err != nil {
		return fmt.Errorf("the SMTP client: %w", err)
	}
	s.session, err = s.client.DialToSMTPClientWithContext(s.ctx)
	return err
}

// send hands in one message and returns the server's answer.
func (s *mailSession) send(msg *gomail.Msg) (answer string, err error) {
	err = s.client.SendWithSMTPClient(s.session, msg)
	if msg.IsDelivered() {
		return msg.ServerResponse(), nil // what failed came after it
	}
	if err == nil {
		err = errors.New("the server has not taken it")
	}
	return "", err
}

// dial connects, and with TLS from the first byte makes it before SMTP begins.
func (s *mailSession) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	limited := &limitedConn{Conn: raw, left: maxSMTP}
	stop := context.AfterFunc(s.ctx, func() { _ = raw.Close() }) // ends what waits for the server
	s.end = sync.OnceFunc(func() {
		stop()
		_ = raw.Close() // what was to be sent has been answered, or has failed
	})
	if s.server.tls != mailTLS {
		return limited, nil
	}
	protected := tls.Client(limited, s.config)
	if err := protected.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return protected, nil
}

// limitedConn is a connection that fails after so many bytes were read.
type limitedConn struct {
	net.Conn
	left int
}

// Read implements [net.Conn].
func (c *limitedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the server sent more than %d bytes", maxSMTP)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// smtpStatus is the status that an error of the library is about; 0 for none.
func smtpStatus(err error) int {
	if failed, ok := errors.AsType[*gomail.SendError](err); ok && failed.ErrorCode() != 0 {
		return failed.ErrorCode()
	}
	if failed, ok := errors.AsType[*textproto.Error](err); ok {
		return failed.Code
	}
	return 0
}
