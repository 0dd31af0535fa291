package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"net/mail"
	"strings"

	gomail "github.com/wneessen/go-mail"
)

// letter is the message for one recipient: plain text and HTML. It is the same, byte for byte, at
// each try.
func letter(n *Notification, from, to *mail.Address, version string) *gomail.Msg {
	m := compose(n)
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithBoundary("portwatcher-"+digest(n.ID)), gomail.WithEncoding(gomail.EncodingQP))
	msg.FromMailAddress(from)
	msg.ToMailAddress(to)
	msg.Subject(m.title)
	msg.SetDateWithValue(n.Time)
	msg.SetMessageIDWithValue(messageID(n, from))
	msg.SetGenHeader("X-Mailer", "portwatcher/"+clean(version))
	msg.SetGenHeader("X-Portwatcher-Status", string(n.NotificationStatus()))
	msg.SetGenHeader("X-Portwatcher-Severity", string(n.Severity))
	// No answer by a machine, such as an out-of-office notice
	// (https://www.rfc-editor.org/rfc/rfc3834#section-5).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	if len(n.Alerts) == 1 {
		// Mail programs show a condition's beginning, repetitions and end as one thread.
		msg.SetGenHeaderPreformatted("References", "<thread."+digest(n.Host+"\n"+n.Alerts[0].Key)+"@"+domain(from)+">")
	}
	if n.Severity == Critical && n.NotificationStatus() == Firing {
		msg.SetImportance(gomail.ImportanceUrgent)
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.text())
	msg.AddAlternativeString(gomail.TypeTextHTML, m.html())
	return msg
}

// messageID is the Message-ID of a notification, without its brackets.
func messageID(n *Notification, from *mail.Address) string {
	id := webhookID(n.ID)
	if len(id) > 100 {
		id = digest(n.ID)
	}
	return "portwatcher." + strings.Trim(id, "/") + "@" + domain(from)
}

func domain(address *mail.Address) string {
	return address.Address[strings.LastIndexByte(address.Address, '@')+1:]
}

// digest is a short text that is the same for the same text only.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}
