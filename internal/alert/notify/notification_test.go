package notify

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// made is when the notifications of the tests were made.
var made = time.Date(2026, 11, 30, 3, 12, 9, 0, time.UTC)

const pageURL = "https://portwatcher.example.org"

// one is the first example, as if it were real.
func one() *Notification {
	n := Examples("node1", made, pageURL)[0].Notification
	n.Test = false
	return n
}

// hostileName is what a process or container may be called: markup of every target, mentions,
// the end of lines, marks that turn text around, and what is no UTF-8.
const hostileName = "<b>x</b>\r\nBcc: e@e.org\u202e\x1b[31m\x00@everyone <!channel> <@U1> **b** [l](http://e) `c` \"q\" & \xff"

// hostile is a notification in which everything that comes from outside is hostileName.
func hostile() *Notification {
	e := &model.Event{
		ID: 7, Time: made, Type: model.Opened, Drift: model.DriftUnexpected, Reason: hostileName,
		Listener: model.Listener{
			Host:      hostileName,
			Container: &model.ContainerRef{ID: hostileName, Name: hostileName, Image: hostileName, Project: hostileName, Service: hostileName},
			Protocol:  model.TCP, Port: 80, Address: netip.MustParseAddr("fe80::1%x\n<i>"), Namespace: hostileName,
			Processes: []model.Process{{PID: 1, Name: hostileName, Executable: hostileName}},
		},
	}
	e.SetReach(model.Published, []string{hostileName})
	return &Notification{
		ID: hostileName, Time: made, Host: hostileName, Project: hostileName, Severity: Critical,
		Alerts: []Alert{{
			Key: hostileName, Rule: hostileName, Severity: Critical, Status: Firing, Since: made, Event: e, URL: "https://page/?" + hostileName,
			LastChange: &ContainerChange{At: made, Image: hostileName, PreviousImage: hostileName}, Expectation: "- " + hostileName + "\n  ```\n",
		}, {Key: "k", Rule: "r", Severity: Info, Status: Resolved, Since: made, Until: made, Event: e}},
	}
}

// many is a digest of so many alerts.
func many(count int) *Notification {
	n := one()
	n.Digest = true
	for len(n.Alerts) < count {
		n.Alerts = append(n.Alerts, n.Alerts[0])
	}
	return n
}

// secretFile writes a secret to a file.
func secretFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// receiver makes a receiver or fails the test.
func receiver(t testing.TB, c ReceiverConfig) Receiver {
	t.Helper()
	if c.Name == "" {
		c.Name = "ops"
	}
	r, err := New(c, Options{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// noSecret checks that an outcome has none of some secrets.
func noSecret(t testing.TB, o Outcome, secrets ...string) {
	t.Helper()
	text := o.Response
	if o.Err != nil {
		text += "\n" + o.Err.Error()
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the secret %q is in %q", secret, text)
		}
	}
	if len(o.Response) > MaxResponse {
		t.Errorf("the response has %d bytes, want %d at most", len(o.Response), MaxResponse)
	}
}
