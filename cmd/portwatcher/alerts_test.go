package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// captured runs the command line, and returns what it printed to standard output.
func captured(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1)
	go func() {
		text, err := io.ReadAll(read)
		if err != nil {
			t.Error(err)
		}
		out <- string(text)
	}()
	before := os.Stdout
	os.Stdout = write
	_, failed := execute(t, arguments...)
	os.Stdout = before
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	return <-out, failed
}

// alertsFile writes settings with one receiver, at an address.
func alertsFile(t *testing.T, address string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	text := "alerts:\n  rules: [{name: new, when: 'type == \"opened\"', to: [ops]}]\n  receivers: [{name: ops, webhook: {url: \"" + address + "\"}}]\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAlertsTest(t *testing.T) {
	var body string
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body = string(text)
		w.WriteHeader(answer)
		io.WriteString(w, "thanks\x1b[2J")
	}))
	defer server.Close()
	file := alertsFile(t, server.URL+"/hidden")
	out, err := captured(t, "alerts", "test", "ops", "--config", file, "--host-name", "node7")
	if err != nil || !strings.Contains(out, "ops answered (status 200): thanks") || !strings.Contains(out, "Delivered to ops (webhook)") || strings.Contains(out, "\x1b") {
		t.Errorf("%q, %v", out, err)
	}
	if !strings.Contains(body, `"test":true`) || !strings.Contains(body, "node7") {
		t.Errorf("it was sent %s", body)
	}
	answer = http.StatusInternalServerError
	_, err = captured(t, "alerts", "test", "ops", "--config", file)
	if err == nil || status(err) != exitFailure || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "500") {
		t.Errorf("a receiver that fails: %v", err)
	}
	_, err = captured(t, "alerts", "test", "opps", "--config", file)
	if err == nil || status(err) != exitUsage || !strings.Contains(err.Error(), `"opps": there is no such receiver; allowed are ops`) {
		t.Errorf("an unknown receiver: %v", err)
	}
	t.Setenv("ALERT_EMAIL", "a@example.org")
	if _, err = captured(t, "alerts", "test", "email", "--config", ""); err == nil || status(err) != exitUsage || !strings.Contains(err.Error(), "SMTP_URL") {
		t.Errorf("mail without a server: %v", err)
	}
}

// recordedJournal has some events, and deliveries.
func recordedJournal(t *testing.T) string {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(journal.Options{Path: path, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	began := time.Now().Add(-time.Hour).UTC()
	for id := range uint64(3) {
		e := &model.Event{ID: id + 1, Time: began.Add(time.Duration(id) * time.Minute), Type: model.Opened, Listener: model.Listener{
			Host: "node1", Container: &model.ContainerRef{ID: strings.Repeat("a", 64), Name: "web"}, Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: uint16(80 + id),
		}}
		e.SetReach(model.Published, []string{"0.0.0.0:80"})
		if !j.Offer(journal.Record{Event: e}) {
			t.Fatal("refused")
		}
	}
	kernel.Eventually(t, "the events are recorded", func() bool { return j.LastID() == 3 })
	step := &journal.AlertStep{Cursor: "alert", ID: 3, Whole: true, Deliveries: []journal.Delivery{
		{Seq: 1, ID: "node1/1/1", Receiver: "ops", Made: began, Due: began, Alerts: 1, Title: "one", Severity: "warning", Notification: json.RawMessage("{}")},
		{Seq: 2, ID: "node1/2/2", Receiver: "ops", Made: began, Due: began.Add(2 * time.Hour), Alerts: 2, Title: "two", Severity: "info", Digest: true, Notification: json.RawMessage("{}")},
	}}
	if err := j.WriteAlerts(ctx, step); err != nil {
		t.Fatal(err)
	}
	d := step.Deliveries[0]
	d.State, d.Finished, d.Tried, d.Tries = journal.DeliveryDead, began.Add(time.Minute), 1, []journal.Try{{Time: began, Status: 410, Error: "410 Gone"}}
	if err := j.RecordTry(ctx, &d); err != nil {
		t.Fatal(err)
	}
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAlertsListAndReplay(t *testing.T) {
	path, file := recordedJournal(t), alertsFile(t, "http://localhost/hidden")
	for _, test := range []struct {
		arguments, want, not string
	}{
		{"list", "ops       dead     1      1       one", ""},
		{"list", "two (digest)  not tried yet", ""},
		{"list --status dead", "410 Gone", "two"},
		{"list --receiver none", "MADE", "ops"},
		{"list --limit 1 --format json", `"id": "node1/2/2"`, "node1/1/1"},
		{"list --since 2h --format json", `"error": "410 Gone"`, ""},
		{"replay --since 2h --config " + file, "3 messages of 3 events.\n  to ops: 3\n  rule new matched 3 events", "hidden"},
		{"replay --since 2h --config " + file, "port 81/tcp of web opened", ""},
		{"replay --since 2h --config " + file + " --format json", `"receiver":"ops"`, ""},
		{"replay --since 2h --config=", "0 messages of 3 events.\n  to anyone: 0", ""}, // by the standard rules
		{"replay --since 2h --config= --rules " + file, "3 messages", ""},
		{"replay --since 58m30s --until 57m30s --config " + file, "1 message of 1 event.", ""},
	} {
		arguments := strings.Fields("alerts " + test.arguments + " --state " + path)
		if !strings.Contains(test.arguments, "--config") {
			arguments = append(arguments, "--config=")
		}
		out, err := captured(t, arguments...)
		if err != nil || !strings.Contains(out, test.want) || test.not != "" && strings.Contains(out, test.not) {
			t.Errorf("%s: %v\n%s\nwant %q in it, and not %q", test.arguments, err, out, test.want, test.not)
		}
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("rules: [{name: few, when: 'port == 81', to: [chat, ops]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := captured(t, "alerts", "replay", "--since", "2h", "--config=", "--state", path, "--rules", rules)
	if err != nil || !strings.Contains(out, "2 messages of 3 events.\n  to chat: 1\n  to ops: 1") {
		t.Errorf("another file: %v\n%s", err, out)
	}
	for arguments, want := range map[string]string{
		"list --status lost":                 `--status: "lost": allowed are pending, delivered, dead`,
		"list --limit -1":                    "--limit",
		"replay --since 1h --until 2h":       "--until",
		"replay --since x":                   "--since",
		"replay --since 1h --rules /no/file": "--rules",
	} {
		if _, err := captured(t, strings.Fields("alerts "+arguments+" --config= --state "+path)...); err == nil || status(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", arguments, err, want)
		}
	}
	if _, err := execute(t, "alerts", "tst"); err == nil || !strings.Contains(err.Error(), "allowed are list, replay, test") {
		t.Errorf("an unknown command: %v", err)
	}
}
