package notify

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMail hands in mail with STARTTLS and with TLS, with users and without, and reads it from the
// mailbox.
func TestMail(t *testing.T) {
	s := newMailServer(t)
	n := one()
	n.ID = "node1.example.org/4711"
	password := secretFile(t, mailPassword)
	getenv := func(url string) Options { return Options{Version: "1.2.3", Getenv: func(string) string { return url }} }
	to := []string{"Ops <ops@example.org>"}
	for i, way := range []struct {
		name  string
		users bool
		EmailConfig
		Options
	}{
		{"STARTTLS", false, EmailConfig{SMTP: s.startTLS, CAFile: s.ca, From: "portwatcher@example.net"}, Options{}},
		{"STARTTLS with a user", true, EmailConfig{SMTP: s.startTLS, CAFile: s.ca, Username: mailUser, PasswordFile: password}, Options{}},
		{"TLS with a user", true, EmailConfig{SMTP: s.tls, TLS: "tls", CAFile: s.ca, Username: mailUser, PasswordFile: password}, Options{}},
		{"URL with STARTTLS", true, EmailConfig{SMTPURLEnv: "U", CAFile: s.ca}, getenv("smtp://ops%40example.org:correct%20horse%20battery@" + s.startTLS)},
		{"URL with TLS", true, EmailConfig{SMTPURLEnv: "U", CAFile: s.ca}, getenv("smtps://ops%40example.org:correct%20horse%20battery@" + s.tls)},
		{"no TLS", false, EmailConfig{SMTP: s.noTLS, TLS: "none"}, Options{}},
		{"URL without TLS", false, EmailConfig{SMTPURLEnv: "U"}, getenv("smtp://" + s.noTLS + "?tls=none")},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.users {
				s.withUsers(t)
			}
			way.To = to
			r, err := New(ReceiverConfig{Name: "mail", Email: &way.EmailConfig}, way.Options)
			if err != nil {
				t.Fatal(err)
			}
			again := *n
			again.ID = fmt.Sprint(n.ID, i)
			for range 2 { // the second try is the same message
				if o := r.Send(t.Context(), &again); !o.Delivered || o.Warning != "" || o.Status != 250 || !strings.Contains(o.Response, "queued as") {
					t.Fatalf("the outcome is %+v", o)
				}
			}
			found := 0
			eventually(t, "both mails are in the mailbox", func() bool {
				found = 0
				for _, l := range s.box("ops", 1) {
					if l.Get("Message-Id") == fmt.Sprintf("<portwatcher.node1%%2Eexample%%2Eorg/4711%d@%s>", i, domainOf(t, l)) {
						checkLetter(t, l, &again)
						found++
					}
				}
				return found == 2
			})
		})
	}
}

func domainOf(t testing.TB, l *letterRead) string {
	t.Helper()
	from, err := l.AddressList("From")
	if err != nil {
		t.Fatal(err)
	}
	return domain(&mail.Address{Address: from[0].Address})
}

func checkLetter(t *testing.T, l *letterRead, n *Notification) {
	t.Helper()
	m := Render(n)
	if l.subject != m.Title || strings.TrimSpace(l.text) != strings.TrimSpace(m.Text) || strings.TrimSpace(l.html) != strings.TrimSpace(m.HTML) {
		t.Errorf("subject %q, text\n%s\nHTML\n%s", l.subject, l.text, l.html)
	}
	if date, err := l.Date(); err != nil || !date.Equal(n.Time) {
		t.Errorf("the date is %v, error %v; want %s", date, err, n.Time)
	}
	if l.Get("Auto-Submitted") != "auto-generated" || l.Get("References") == "" || l.Get("X-Portwatcher-Severity") != string(n.Severity) {
		t.Errorf("the header is %v", l.Header)
	}
}

// Without TLS that is verified nothing is handed in, and no password is sent.
func TestMailTLSIsVerified(t *testing.T) {
	s := newMailServer(t)
	password := secretFile(t, mailPassword)
	to := []string{mailUser}
	for name, test := range map[string]struct {
		EmailConfig
		want string
	}{
		"another CA, STARTTLS": {EmailConfig{SMTP: s.startTLS}, "certificate"},
		"another CA, TLS":      {EmailConfig{SMTP: s.tls, TLS: "tls"}, "certificate"},
		"no STARTTLS there":    {EmailConfig{SMTP: s.noTLS, CAFile: s.ca, Username: mailUser, PasswordFile: password}, "STARTTLS"},
		"plain, TLS demanded":  {EmailConfig{SMTP: s.startTLS, TLS: "none"}, "STARTTLS"},
	} {
		test.To = to
		o := receiver(t, ReceiverConfig{Email: &test.EmailConfig}).Send(t.Context(), one())
		if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), test.want) {
			t.Errorf("%s: %+v", name, o)
		}
		noSecret(t, o, mailPassword)
	}
}

// A wrong password is an error to be tried again, and is in no error; the file is read again.
func TestMailPassword(t *testing.T) {
	s := newMailServer(t)
	s.withUsers(t)
	file := secretFile(t, "the wrong password")
	r := receiver(t, ReceiverConfig{Email: &EmailConfig{To: []string{mailUser}, SMTP: s.startTLS, CAFile: s.ca, Username: mailUser, PasswordFile: file}})
	o := r.Send(t.Context(), one())
	if o.Delivered || o.Gone || o.Status != 535 || o.Err == nil {
		t.Errorf("with a wrong password: %+v", o)
	}
	noSecret(t, o, "the wrong password")
	writeFile(t, file, mailPassword+"\n")
	if o := r.Send(t.Context(), one()); !o.Delivered {
		t.Errorf("after the file was written: %+v", o)
	}
}

// An address that is refused costs the others nothing, and is named.
func TestSeveralRecipients(t *testing.T) {
	s := newMailServer(t)
	c := &EmailConfig{To: []string{"ops@example.org", "nobody@example.org", "night@example.org"}, SMTP: s.noTLS, TLS: "none", From: "p@example.net"}
	n := hostile()
	n.ID = "node1/1"
	o := receiver(t, ReceiverConfig{Email: c}).Send(t.Context(), n)
	if !o.Delivered || o.Warning != o.Response || !strings.Contains(o.Warning, "refused for 1 of 3 recipients: nobody@example.org: ") || !strings.Contains(o.Warning, "550") {
		t.Errorf("the outcome is %+v", o)
	}
	ops, night := s.box("ops", 1)[0], s.box("night", 1)[0]
	for _, l := range []*letterRead{ops, night} {
		if l.Get("Message-Id") != "<portwatcher.node1/1@example.net>" || l.Get("Bcc") != "" || strings.ContainsAny(l.subject, "\r\n\x1b\u202e") || l.Get("X-Priority") == "" {
			t.Errorf("the header is %v", l.Header)
		}
		if strings.Contains(l.text, "\nBcc:") {
			t.Errorf("a name makes a line of the text:\n%s", l.text)
		}
	}
	c.To = []string{"nobody@example.org"}
	if o := receiver(t, ReceiverConfig{Email: c}).Send(t.Context(), n); o.Delivered || o.Gone || o.Status != 550 || o.Err == nil {
		t.Errorf("with no other recipient: %+v", o)
	}
	c.To = []string{"somebody@elsewhere.example.com"}
	if o := receiver(t, ReceiverConfig{Email: c}).Send(t.Context(), n); o.Delivered || o.Status != 554 {
		t.Errorf("a recipient of another domain: %+v", o)
	}
}

// smtpScript is a server that answers each command by a function, for what a real server does
// only in trouble. It returns its address, and the recipients for which it has taken mail.
func smtpScript(t testing.TB, answer func(command string) string) (string, func() []string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mutex sync.Mutex
	var taken []string
	var all sync.WaitGroup
	all.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer connection.Close()
				smtpTalk(connection, answer, func(recipient string) {
					mutex.Lock()
					defer mutex.Unlock()
					taken = append(taken, recipient)
				})
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return listener.Addr().String(), func() []string {
		mutex.Lock()
		defer mutex.Unlock()
		return append([]string(nil), taken...)
	}
}

func smtpTalk(connection net.Conn, answer func(string) string, taken func(string)) {
	lines := bufio.NewReader(connection)
	_, _ = io.WriteString(connection, "220 script\r\n")
	recipient, data := "", false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		command := line
		if data {
			if line != "." {
				continue
			}
			data, command = false, "."
		}
		reply := answer(command)
		if reply == "" {
			_, _ = io.Copy(io.Discard, connection) // silence, until the client has gone
			return
		}
		if _, err := io.WriteString(connection, reply+"\r\n"); err != nil {
			return
		}
		switch {
		case strings.HasPrefix(command, "RCPT TO:") && reply[0] == '2':
			recipient = strings.Trim(strings.Fields(strings.TrimPrefix(command, "RCPT TO:"))[0], "<>")
		case command == "DATA" && reply[0] == '3':
			data = true
		case command == "." && reply[0] == '2':
			taken(recipient)
		case command == "QUIT" || strings.HasPrefix(reply, "421"):
			return
		}
	}
}

// usual answers a command as a server does that takes everything.
func usual(command string) string {
	switch {
	case command == "DATA":
		return "354 go on"
	case strings.HasPrefix(command, "EHLO"):
		return "250-script\r\n250 8BITMIME"
	case command == "QUIT":
		return "221 bye"
	}
	return "250 taken"
}

// A recipient for whom the server has taken the mail gets no second one while others are tried
// again.
func TestMailIsTriedAgainForOthersOnly(t *testing.T) {
	var mutex sync.Mutex
	greylisted := true
	address, taken := smtpScript(t, func(command string) string {
		mutex.Lock()
		defer mutex.Unlock()
		if greylisted && strings.HasPrefix(command, "RCPT TO:<b@") {
			return "451 try again later"
		}
		return usual(command)
	})
	r := receiver(t, ReceiverConfig{Email: &EmailConfig{To: []string{"a@example.org", "b@example.org", "c@example.org"}, SMTP: address, TLS: "none"}})
	o := r.Send(t.Context(), one())
	if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "not taken for 1 of 3 recipients: b@example.org") {
		t.Errorf("the first try: %+v", o)
	}
	mutex.Lock()
	greylisted = false
	mutex.Unlock()
	if o := r.Send(t.Context(), one()); !o.Delivered {
		t.Errorf("the second try: %+v", o)
	}
	if got := strings.Join(taken(), " "); got != "a@example.org c@example.org b@example.org" {
		t.Errorf("taken for %s, want each once", got)
	}
	if o := r.Send(t.Context(), one()); !o.Delivered || len(taken()) != 6 {
		t.Errorf("when it is sent anew: %+v, %v", o, taken())
	}
}

// A server that misbehaves ends within the bounds, and what it has taken is delivered, whatever
// it does after that.
func TestMisbehavingMailServer(t *testing.T) {
	on := func(prefix, reply string) func(string) string {
		return func(command string) string {
			if strings.HasPrefix(command, prefix) {
				return reply
			}
			return usual(command)
		}
	}
	for name, test := range map[string]struct {
		answer    func(string) string
		delivered bool
		status    int
		err       string
	}{
		"closes at once":              {on("EHLO", "421 too many connections"), false, 421, "421"},
		"refuses the sender":          {on("MAIL", "550 not you"), false, 550, "not you"},
		"full":                        {on("DATA", "452 no space"), false, 452, "no space"},
		"refuses the content":         {on(".", "554 spam"), false, 554, "spam"},
		"fails after it has taken it": {on("RSET", "421 going down"), true, 250, ""},
		"no QUIT":                     {on("QUIT", "500 what?"), true, 250, ""},
		"silent":                      {on("MAIL", ""), false, 0, "no answer in time"},
		"a line without end":          {on("MAIL", "250 "+strings.Repeat("x", 3<<20)), false, 0, "more than 1048576 bytes"},
		"shows control characters":    {on("MAIL", "550 \x1b[31mred"), false, 550, "red"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := smtpScript(t, test.answer)
			r := receiver(t, ReceiverConfig{Email: &EmailConfig{To: []string{"a@example.org"}, SMTP: address, TLS: "none"}})
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			if name == "silent" {
				ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
			}
			defer cancel()
			o := r.Send(ctx, one())
			if o.Delivered != test.delivered || o.Status != test.status || (o.Err == nil) != test.delivered {
				t.Errorf("the outcome is %+v", o)
			}
			if o.Err != nil && (!strings.Contains(o.Err.Error(), test.err) || strings.Contains(o.Err.Error(), "\x1b")) {
				t.Errorf("error %v, want %q in it", o.Err, test.err)
			}
		})
	}
}

func TestTakersAreBounded(t *testing.T) {
	var known takers
	for i := range maxTakers + 10 {
		known.add(fmt.Sprint(i), "a")
	}
	if known.has("9", "a") || !known.has("10", "a") || len(known.by) != maxTakers || len(known.ids) != maxTakers {
		t.Errorf("%d notifications are kept, want the last %d", len(known.by), maxTakers)
	}
	known.forget("50")
	known.forget("no such")
	if known.has("50", "a") || !known.has("51", "a") || len(known.ids) != maxTakers-1 {
		t.Error("forgetting one changed others")
	}
}
