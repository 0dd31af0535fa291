package notify

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MailTLS has what the field tls of a mail receiver may be: TLS after STARTTLS, which the server
// must offer; TLS from the first byte; or no TLS, for a server on this host without a password.
var MailTLS = []string{"starttls", "tls", "none"}

const (
	mailStartTLS = "starttls"
	mailTLS      = "tls"
	mailPlain    = "none"
)

// The standard ports of SMTP with STARTTLS (submission) and with TLS (submissions).
// Source: https://www.rfc-editor.org/rfc/rfc8314#section-7.
const (
	portStartTLS = 587
	portTLS      = 465
)

// email is mail through one SMTP server. It makes a connection for each try.
//
// Each recipient gets a message of its own, so that one whose address is refused costs the
// others nothing. The Message-ID is the same for all of them and at each try.
type email struct {
	name, version string
	to            []*mail.Address
	from          *mail.Address // nil: follows from server
	ca            string
	server        smtpServer // without password
	password, url source
	taken         takers
}

// smtpServer is where mail is handed in.
type smtpServer struct {
	host     string
	port     int
	tls      string // one of MailTLS
	username string
	password string
}

func newEmail(name string, c *EmailConfig, o *Options) (*email, error) {
	e := &email{name: name, version: o.Version, ca: c.CAFile}
	if len(c.To) == 0 {
		return nil, errors.New("to: it is empty; allowed are addresses such as ops@example.org")
	}
	for _, text := range c.To {
		address, err := mail.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("to: %q is no address: %w; allowed are addresses such as ops@example.org", text, err)
		}
		e.to = append(e.to, address)
	}
	var err error
	if c.From != "" {
		if e.from, err = mail.ParseAddress(c.From); err != nil {
			return nil, fmt.Errorf("from: %q is no address: %w; allowed is an address such as portwatcher@example.org", c.From, err)
		}
	}
	if e.url, err = newSource("smtp_url", field{"smtp_url_file", c.SMTPURLFile}, field{"smtp_url_env", c.SMTPURLEnv}, o); err != nil {
		return nil, err
	}
	if e.password, err = newSource("the password", field{"password_file", c.PasswordFile}, field{"password_env", c.PasswordEnv}, o); err != nil {
		return nil, err
	}
	if e.url.set() == (c.SMTP != "") {
		return nil, errors.New("smtp: allowed is one of smtp (host:port), smtp_url_file and smtp_url_env (smtp://user:password@host:587)")
	}
	if e.url.set() && (c.Username != "" || e.password.set() || c.TLS != "") {
		return nil, errors.New("smtp_url: user, password and tls are parts of the URL; allowed are no fields for them beside it")
	}
	if (c.Username != "") != e.password.set() {
		return nil, errors.New("username: allowed is both username and password_file (or password_env), or neither")
	}
	if c.SMTP != "" {
		if e.server, err = parseServer(c.SMTP, c.TLS, c.Username); err != nil {
			return nil, err
		}
	}
	if _, err = readCA(c.CAFile); err != nil {
		return nil, err
	}
	_, err = e.current(&scrubber{})
	return e, err
}

// parseServer reads "host:port", where port 465 is TLS if nothing else is given.
func parseServer(text, protection, username string) (smtpServer, error) {
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		host, portText = strings.Trim(text, "[]"), strconv.Itoa(portStartTLS)
	}
	number, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || number == 0 || host == "" || strings.ContainsAny(host, "/@ ") {
		return smtpServer{}, fmt.Errorf("smtp: %q; allowed is host:port, such as smtp.example.org:587", text)
	}
	if protection == "" {
		if protection = mailStartTLS; number == portTLS {
			protection = mailTLS
		}
	}
	s := smtpServer{host: host, port: int(number), tls: protection, username: username}
	return s, s.check()
}

// parseSMTPURL reads smtp://user:password@host:587 (STARTTLS) and smtps://… (TLS);
// ?tls=none is for a server on this host. The error does not contain it.
func parseSMTPURL(text string) (smtpServer, error) {
	refused := errors.New("it is no URL of an SMTP server; allowed are smtp://user:password@host:587 and smtps://user:password@host:465, with user and password " +
		"escaped as in URLs (%40 for @), and ?tls=none for a server on this host")
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return smtpServer{}, refused
	}
	s := smtpServer{host: u.Hostname(), username: u.User.Username()}
	s.password, _ = u.User.Password()
	switch u.Scheme {
	case "smtp":
		s.port, s.tls = portStartTLS, mailStartTLS
	case "smtps":
		s.port, s.tls = portTLS, mailTLS
	default:
		return smtpServer{}, refused
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return smtpServer{}, refused
	}
	for name, values := range query {
		if name != "tls" || u.Scheme != "smtp" {
			return smtpServer{}, refused
		}
		s.tls = values[0]
	}
	if u.Port() != "" {
		number, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || number == 0 {
			return smtpServer{}, refused
		}
		s.port = int(number)
	}
	if (s.username == "") != (s.password == "") {
		return smtpServer{}, refused
	}
	return s, s.check()
}

// check refuses a password without TLS.
func (s *smtpServer) check() error {
	if !slices.Contains(MailTLS, s.tls) {
		return fmt.Errorf("tls: %q; allowed are %s", s.tls, strings.Join(MailTLS, ", "))
	}
	if s.tls == mailPlain && s.username != "" {
		return errors.New("tls: none would send the password in clear text; allowed with a username are starttls and tls")
	}
	return nil
}

// Name implements [Receiver].
func (e *email) Name() string { return e.name }

// Kind implements [Receiver].
func (e *email) Kind() string { return KindEmail }

// Close implements [Receiver]. Each try closes its own connection.
func (e *email) Close() error { return nil }

// current returns the server with the password as it is now.
func (e *email) current(secrets *scrubber) (smtpServer, error) {
	s := e.server
	if e.url.set() {
		text, err := e.url.line()
		if err != nil {
			return s, fmt.Errorf("smtp_url: %w", err)
		}
		secrets.add(text)
		if s, err = parseSMTPURL(text); err != nil {
			return s, fmt.Errorf("smtp_url: %w", err)
		}
	}
	if e.password.set() {
		var err error
		if s.password, err = e.password.line(); err != nil {
			return s, fmt.Errorf("the password: %w", err)
		}
	}
	secrets.add(s.password, s.username+":"+s.password, "\x00"+s.username+"\x00"+s.password)
	return s, nil
}

// sender is the address of the sender: the one that is given, else the user where that is an
// address, else the first recipient, whose server takes its own address.
func (e *email) sender(s *smtpServer) *mail.Address {
	if e.from != nil {
		return e.from
	}
	address, err := mail.ParseAddress(s.username)
	if err != nil {
		address = e.to[0]
	}
	return &mail.Address{Name: "portwatcher", Address: address.Address}
}

// Send implements [Receiver]. It is delivered when the server has taken it for each recipient,
// or for one where it refuses the others for good (5yz); Response names those. A recipient for
// whom the server has taken it gets no second message at the next try.
func (e *email) Send(ctx context.Context, n *Notification) Outcome {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var secrets scrubber
	server, err := e.current(&secrets)
	if err != nil {
		return Outcome{Err: err}
	}
	pool, err := readCA(e.ca)
	if err != nil {
		return Outcome{Err: err}
	}
	s := &mailSession{ctx: ctx, server: server, config: &tls.Config{RootCAs: pool, ServerName: server.host}}
	defer s.close()
	if err := s.begin(); err != nil {
		return Outcome{Status: smtpStatus(err), Err: errors.New(secrets.text(reason(ctx, err)))}
	}
	var o Outcome
	var refused, failed []string
	for _, to := range e.to {
		if e.taken.has(n.ID, to.Address) {
			continue
		}
		answer, err := s.send(letter(n, e.sender(&server), to, e.version))
		if err == nil {
			e.taken.add(n.ID, to.Address)
			o.Status, o.Response = statusAccepted, secrets.text(answer)
			continue
		}
		text := to.Address + ": " + reason(ctx, err)
		if status := smtpStatus(err); status >= 500 {
			refused = append(refused, text)
			o.Status = cmp.Or(o.Status, status)
		} else {
			failed = append(failed, text)
			o.Status = cmp.Or(o.Status, status)
		}
	}
	return e.outcome(o, n, refused, failed, &secrets)
}

// statusAccepted is the status of a message that a server has taken
// (https://www.rfc-editor.org/rfc/rfc5321#section-4.2.3).
const statusAccepted = 250

// outcome is the result for all recipients.
func (e *email) outcome(o Outcome, n *Notification, refused, failed []string, secrets *scrubber) Outcome {
	bad := slices.Concat(failed, refused)
	text := fmt.Sprintf("%d of %d recipients: %s", len(bad), len(e.to), strings.Join(bad, "; "))
	switch {
	case len(bad) == 0:
		o.Delivered = true
	case len(failed) == 0 && len(refused) < len(e.to):
		o.Delivered, o.Warning = true, secrets.text("refused for "+text)
		o.Response = o.Warning
	default:
		o.Err = errors.New(secrets.text("not taken for " + text))
		return o
	}
	e.taken.forget(n.ID)
	return o
}
