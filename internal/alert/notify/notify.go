// Package notify delivers notifications of alerts to receivers: webhooks, mail, chat
// services and Alertmanager.
//
// A [Receiver] makes one try at a time and reports its [Outcome]. It keeps no queue and
// repeats nothing: the caller owns what is due, the order and the retries. What a try sends
// follows from the [Notification] alone, so that each try sends the same, and a receiver that
// got it twice can drop the second by its id.
//
// Names of containers and processes come from inside containers, and are not trusted: they are
// escaped for each form of a message. Passwords, keys and the URLs of webhooks and chat services
// are secrets: they are read from files or the environment, and no error, log or answer of this
// package contains them.
package notify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"portwatcher/internal/model"
)

// Severity is how urgent an alert is.
type Severity string

// The severities, in rising order.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Severities has every severity, in rising order.
var Severities = []Severity{Info, Warning, Critical}

// ParseSeverity reads a severity. The error names what is allowed.
func ParseSeverity(text string) (Severity, error) {
	if s := Severity(text); slices.Contains(Severities, s) {
		return s, nil
	}
	return "", fmt.Errorf("allowed are %s", model.Join(Severities, ", "))
}

// Compare returns a negative number where s is less urgent than other, 0 where both are the
// same, else a positive number. An unknown severity is the least urgent.
func (s Severity) Compare(other Severity) int {
	return slices.Index(Severities, s) - slices.Index(Severities, other)
}

// Status is whether the condition of an alert lasts.
type Status string

const (
	// Firing: the condition lasts.
	Firing Status = "firing"
	// Resolved: the condition has ended.
	Resolved Status = "resolved"
)

// Notification is one message to one receiver: the alerts of one group (host and project), or a
// digest of what was held back. It is immutable, and the same at each try.
type Notification struct {
	// ID is the identity of the notification, "<host>/<event id>" or alike; it is the webhook-id.
	ID string
	// Time is when the notification was made.
	Time time.Time
	// Host is the name of the host as in events.
	Host string
	// Project is the Compose project; empty for none, or for several.
	Project string
	// Severity is the highest of its alerts.
	Severity Severity
	// Digest means that it has what quiet hours or a bound on the rate held back.
	Digest bool
	// Test means that it is an example, which nobody needs to act on.
	Test bool
	// Alerts has at least one.
	Alerts []Alert
}

// Alert is one condition that a rule has found.
type Alert struct {
	// Key is the identity of the condition: rule, target, protocol, port and exposure. It has no
	// pid, container id or time, and is the same while the condition lasts and when it ends.
	Key string
	// Rule is the name of the rule.
	Rule     string
	Severity Severity
	Status   Status
	// Since is when the condition began.
	Since time.Time
	// Until is when it ended; zero while it lasts.
	Until time.Time
	// Event is the event by which it began (firing) or ended (resolved). It is never nil.
	Event *model.Event
	// LastSeen is when the same endpoint was last open before; nil for never.
	LastSeen *time.Time
	// LastChange is the last start or change of image of the container; nil where it is not known.
	LastChange *ContainerChange
	// URL is the link to the page; empty where the page's address is not set.
	URL string
	// Expectation is the line to add to the file of expectations; empty where it is no drift.
	Expectation string
}

// ContainerChange is a start of a container, perhaps with another image.
type ContainerChange struct {
	At time.Time
	// Image is the container's image since then. PreviousImage is the one before; empty where it
	// is the same or not known.
	Image, PreviousImage string
}

// MaxResponse bounds Outcome.Response, in bytes.
const MaxResponse = 512

// Outcome is the result of one try.
type Outcome struct {
	// Delivered means that the receiver has taken the notification.
	Delivered bool
	// Status is the HTTP or SMTP status; 0 for none.
	Status int
	// Response is the beginning of what was answered, at most [MaxResponse] bytes of printable
	// text without secrets.
	Response string
	// Err is why it was not delivered; nil where it was. It contains no secret.
	Err error
	// Warning is what part was not delivered although Delivered is true: recipients that the mail
	// server refuses for good, Alertmanagers that are down. Response has it too. Empty for none.
	Warning string
	// RetryAfter is how long the receiver asked to wait before the next try; 0 for not asked.
	RetryAfter time.Duration
	// Gone means that the receiver refuses for good: another try would be in vain.
	Gone bool
}

// Timeout bounds each try of a receiver, from connecting to the last byte of the answer.
const Timeout = 15 * time.Second

// The kinds of receivers.
const (
	KindWebhook      = "webhook"
	KindEmail        = "email"
	KindShoutrrr     = "shoutrrr"
	KindAlertmanager = "alertmanager"
)

// Receiver delivers notifications. It is safe for concurrent use.
type Receiver interface {
	// Name is the name in the settings.
	Name() string
	// Kind is one of the constants above.
	Kind() string
	// Send makes one try. It returns when the try has ended, at the latest when ctx ends or
	// [Timeout] is over.
	Send(ctx context.Context, n *Notification) Outcome
	// Close closes idle connections. No Send may follow.
	Close() error
}
