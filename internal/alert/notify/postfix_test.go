package notify

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"portwatcher/internal/testutil/cert"
	"portwatcher/internal/testutil/kernel"
)

// The user of the mail server of the tests.
const (
	mailUser     = "ops@example.org"
	mailPassword = "correct horse battery"
)

// mailServer is a real Postfix with a configuration, queue and ports of its own, which takes mail
// for ops@example.org and night@example.org; Dovecot checks its users.
type mailServer struct {
	t                    *testing.T
	folder               string
	startTLS, tls, noTLS string // addresses: STARTTLS, TLS from the first byte, neither
	ca                   string
	hasUsers             bool
}

func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	postfix := command(t, "postfix", "postfix")
	if os.Getuid() != 0 {
		kernel.Skip(t, "Postfix starts as root only")
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	// The servers' users need to pass through the folder.
	folder, err := os.MkdirTemp("", "portwatcher-mail-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	s := &mailServer{t: t, folder: folder, startTLS: freePort(t), tls: freePort(t), noTLS: freePort(t)}
	for _, path := range []string{"", "etc", "queue", "data", "mail"} {
		if err := os.MkdirAll(filepath.Join(folder, path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(folder, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, id := range map[string]int{"data": uid, "mail": nobody} {
		if err := os.Chown(filepath.Join(folder, path), id, -1); err != nil {
			t.Fatal(err)
		}
	}
	certificate, key := cert.SelfSigned(t, 1, "127.0.0.1", "localhost")
	s.ca = writeFile(t, filepath.Join(folder, "cert.pem"), string(certificate))
	writeFile(t, filepath.Join(folder, "key.pem"), string(key))
	writeFile(t, filepath.Join(folder, "etc/main.cf"), s.main())
	writeFile(t, filepath.Join(folder, "etc/master.cf"), s.master())
	s.users()
	daemon(t, postfix, "-c", filepath.Join(folder, "etc"), "start-fg")
	t.Cleanup(func() { // its processes are in a session of their own
		if text, err := exec.Command(postfix, "-c", filepath.Join(folder, "etc"), "stop").CombinedOutput(); err != nil {
			t.Errorf("stop Postfix: %v: %s", err, text)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(folder, "log"))
			t.Logf("Postfix logged:\n%s", log)
		}
	})
	for _, address := range []string{s.startTLS, s.tls, s.noTLS} {
		eventually(t, "Postfix listens at "+address, func() bool {
			connection, err := net.Dial("tcp", address)
			if err == nil {
				connection.Close()
			}
			return err == nil
		})
	}
	return s
}

// nobody owns the mailboxes.
const nobody = 65534

func (s *mailServer) main() string {
	return strings.ReplaceAll(`
compatibility_level = 3.6
queue_directory = FOLDER/queue
data_directory = FOLDER/data
maillog_file = FOLDER/log
maillog_file_prefixes = FOLDER
myhostname = mail.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
virtual_mailbox_domains = example.org
virtual_mailbox_base = FOLDER/mail
virtual_mailbox_maps = inline:{{ops@example.org=ops/},{night@example.org=night/}}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 100
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_cert_file = FOLDER/cert.pem
smtpd_tls_key_file = FOLDER/key.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = auth
smtpd_tls_auth_only = yes
smtpd_delay_reject = yes
`, "FOLDER", s.folder)
}

func (s *mailServer) master() string {
	return fmt.Sprintf(`
%s inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes
%s inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject
%s inet n - n - - smtpd -o smtpd_tls_security_level=none
`, s.startTLS, s.tls, s.noTLS) + `cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`
}

// users starts Dovecot as the server's list of users, where it is installed.
func (s *mailServer) users() {
	dovecot, err := exec.LookPath("dovecot")
	if err != nil {
		return
	}
	s.hasUsers = true
	writeFile(s.t, filepath.Join(s.folder, "users"), mailUser+":{PLAIN}"+mailPassword+"\n")
	if err := os.MkdirAll(filepath.Join(s.folder, "dovecot"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	configuration := writeFile(s.t, filepath.Join(s.folder, "dovecot.conf"), strings.ReplaceAll(`
base_dir = FOLDER/dovecot
state_dir = FOLDER/dovecot/state
log_path = /dev/stderr
protocols =
ssl = no
auth_mechanisms = plain login scram-sha-256
passdb {
  driver = passwd-file
  args = scheme=PLAIN FOLDER/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=FOLDER
}
service auth {
  unix_listener FOLDER/queue/auth {
    mode = 0666
  }
}
`, "FOLDER", s.folder))
	daemon(s.t, dovecot, "-F", "-c", configuration)
	eventually(s.t, "Dovecot checks passwords", func() bool {
		connection, err := net.Dial("unix", filepath.Join(s.folder, "queue/auth"))
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
}

// withUsers skips a test where there is no list of users.
func (s *mailServer) withUsers(t *testing.T) {
	t.Helper()
	if !s.hasUsers {
		kernel.Skip(t, "it needs dovecot, which is Debian's package dovecot-core")
	}
}

// box returns the mails in a mailbox, as soon as there are so many.
func (s *mailServer) box(name string, count int) []*letterRead {
	s.t.Helper()
	var files []string
	eventually(s.t, fmt.Sprintf("%d mails for %s", count, name), func() bool {
		var err error
		if files, err = filepath.Glob(filepath.Join(s.folder, "mail", name, "new", "*")); err != nil {
			s.t.Fatal(err)
		}
		return len(files) >= count
	})
	var letters []*letterRead
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		letters = append(letters, readLetter(s.t, content))
	}
	return letters
}

// letterRead is a mail as a mail program reads it.
type letterRead struct {
	mail.Header
	subject, text, html string
}

func readLetter(t testing.TB, content []byte) *letterRead {
	t.Helper()
	message, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	l := &letterRead{Header: message.Header}
	if l.subject, err = (&mime.WordDecoder{}).DecodeHeader(message.Header.Get("Subject")); err != nil {
		t.Error(err)
	}
	kind, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("the media type is %q, error %v", kind, err)
	}
	parts := multipart.NewReader(message.Body, parameters["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		if encoding := part.Header.Get("Content-Transfer-Encoding"); encoding != "quoted-printable" {
			t.Fatalf("the encoding is %q", encoding)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		plain := strings.ReplaceAll(string(text), "\r\n", "\n")
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			l.html = plain
		} else {
			l.text = plain
		}
	}
}
