package notify

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Options are what all receivers of a program have in common.
type Options struct {
	// Version is portwatcher's, for the header User-Agent.
	Version string
	// Hold is how long an Alertmanager keeps a firing alert that is not sent again; 0 means
	// [StandardHold]. The caller sends it again in less than half of that.
	Hold time.Duration
	// Getenv returns an environment variable; nil means that of the process.
	Getenv func(name string) string
	// Log receives what shoutrrr's service logger writes, from any goroutine; with nil there is
	// no such service.
	Log func(text string)
}

// StandardHold is Options.Hold where it is 0.
const StandardHold = 5 * time.Minute

// New makes the receiver of an entry. It reads and checks the files, variables and templates that
// the entry names, and connects to nothing. The error names the entry, the field and what is
// allowed, and contains no secret.
func New(c ReceiverConfig, o Options) (Receiver, error) {
	if c.Name == "" {
		return nil, errors.New("receivers: an entry has no name; allowed is a name by which rules send to it")
	}
	r, kind, err := newReceiver(&c, &o)
	if err != nil {
		if kind != "" {
			kind += ": "
		}
		return nil, fmt.Errorf("receiver %q: %s%w", c.Name, kind, err)
	}
	return &checked{r}, nil
}

func newReceiver(c *ReceiverConfig, o *Options) (r Receiver, kind string, err error) {
	kinds := 0
	if c.Webhook != nil {
		kinds, kind = kinds+1, KindWebhook
	}
	if c.Email != nil {
		kinds, kind = kinds+1, KindEmail
	}
	if c.Shoutrrr != nil {
		kinds, kind = kinds+1, KindShoutrrr
	}
	if c.Alertmanager != nil {
		kinds, kind = kinds+1, KindAlertmanager
	}
	if kinds != 1 {
		return nil, "", fmt.Errorf("it has %d kinds; allowed is one of webhook, email, shoutrrr and alertmanager", kinds)
	}
	switch kind {
	case KindWebhook:
		r, err = newWebhook(c.Name, c.Webhook, o)
	case KindEmail:
		r, err = newEmail(c.Name, c.Email, o)
	case KindShoutrrr:
		r, err = newChat(c.Name, c.Shoutrrr, o)
	default:
		r, err = newAlertmanager(c.Name, c.Alertmanager, o)
	}
	return r, kind, err
}

// checked refuses what is no notification, so that no receiver has to.
type checked struct{ Receiver }

// Send implements [Receiver].
func (c *checked) Send(ctx context.Context, n *Notification) Outcome {
	if len(n.Alerts) == 0 || n.ID == "" {
		return Outcome{Gone: true, Err: fmt.Errorf("notification %q: it has %d alerts; allowed is one or more, and an id", n.ID, len(n.Alerts))}
	}
	for i := range n.Alerts {
		if n.Alerts[i].Event == nil {
			return Outcome{Gone: true, Err: fmt.Errorf("notification %q: alert %q has no event", n.ID, n.Alerts[i].Key)}
		}
	}
	return c.Receiver.Send(ctx, n)
}
