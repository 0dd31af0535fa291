package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
)

// inbox takes the webhooks of a portwatcher, and refuses the first.
type inbox struct {
	mutex  sync.Mutex
	tries  []string          // the id of each
	titles map[string]string // by id
	order  []string          // ids
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	b.mutex.Lock()
	defer b.mutex.Unlock()
	id := r.Header.Get("webhook-id")
	b.tries = append(b.tries, id)
	if len(b.tries) == 1 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	var event struct {
		Data struct {
			Title  string
			Alerts []struct{ Rule, Status, Subject string }
		}
	}
	if err := errors.Join(err, json.Unmarshal(text, &event)); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var parts []string
	for _, a := range event.Data.Alerts {
		parts = append(parts, a.Rule+" "+a.Status)
	}
	if _, known := b.titles[id]; !known {
		b.order = append(b.order, id)
	}
	b.titles[id] = strings.Join(parts, ", ")
}

// wait waits until exactly these messages have come, in this order.
func (b *inbox) wait(t *testing.T, want ...string) {
	t.Helper()
	harness.Eventually(t, "these messages come", func() string {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		var got []string
		for _, id := range b.order {
			got = append(got, b.titles[id])
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("got %q, want %q", got, want)
		}
		return ""
	})
}

// TestAlerts: a redeploy that publishes a database is notified, by a receiver that fails at first,
// and so is its end. Restarts of the container and a kill -9 of portwatcher repeat nothing.
func TestAlerts(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	got := &inbox{titles: map[string]string{}}
	server := httptest.NewServer(got)
	defer server.Close()
	folder := t.TempDir()
	settings, expectations := filepath.Join(folder, "config.yaml"), filepath.Join(folder, "expected.yaml")
	state := filepath.Join(folder, "portwatcher.db")
	project := harness.Name(t, "shop")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(settings, `alerts:
  group_wait: 1s
  rules:
    - {name: drift, when: 'drift != "" && drift != "uncovered"', severity: critical, to: [ops]}
    - {name: blind, when: 'type == "gap"', to: [ops]}
  receivers:
    - {name: ops, webhook: {url: "`+server.URL+`/hidden"}}
`)
	write(expectations, "version: 1\nexpect:\n  - {target: "+project+"/db, port: 5432/tcp, exposure: network}\n")
	arguments := []string{"--config", settings, "--expect", expectations}
	watch := harness.StartWatch(t, harness.WatchSpec{Arguments: arguments, State: state})
	database := func(options ...string) *harness.Container {
		labels := []string{"--label", model.LabelProject + "=" + project, "--label", model.LabelService + "=db"}
		return start(t, "db", 1, slices.Concat(labels, options), "--mptcp=false", "--tcp", "0.0.0.0:5432")
	}
	db := database()
	watch.WaitEvent(t, 0, harness.Opened(db.Name, "tcp", "0.0.0.0", 5432))
	db.Do(t, "rm", "--force")
	db = database("--publish", "127.0.0.1::5432")
	got.wait(t, "drift firing")
	got.mutex.Lock()
	if len(got.tries) != 2 || got.tries[0] != got.tries[1] {
		t.Errorf("the tries have the ids %q, want one twice", got.tries)
	}
	got.mutex.Unlock()

	at := watch.LastID()
	db.Do(t, "restart", "--time", "1")
	db.Refresh(t)
	watch.WaitEvent(t, at, harness.Opened(db.Name, "tcp", "0.0.0.0", 5432))
	if _, status := watch.Stop(t, syscall.SIGKILL); status == 0 {
		t.Error("it was not killed")
	}
	harness.StartWatch(t, harness.WatchSpec{Arguments: arguments, State: state, After: watch})
	got.wait(t, "drift firing", "blind firing")

	db.Do(t, "rm", "--force")
	database()
	got.wait(t, "drift firing", "blind firing", "drift resolved")
	environment := []string{"MONITOR_CONTAINERS=" + harness.Pattern(t), "PORTWATCHER_STATE=" + state, "PORTWATCHER_CONFIG=" + settings}
	list := harness.Run(t, environment, "alerts", "list", "--format", "json")
	if list.Status != 0 || strings.Count(list.Stdout, `"state": "delivered"`) != 3 || !strings.Contains(list.Stdout, "500") {
		t.Errorf("alerts list: status %d\n%s%s", list.Status, list.Stdout, list.Stderr)
	}
	replay := harness.Run(t, environment, "alerts", "replay", "--since", "1h")
	if replay.Status != 0 || !strings.Contains(replay.Stdout, "3 messages of ") || strings.Contains(replay.Stdout, "hidden") {
		t.Errorf("alerts replay: status %d\n%s%s", replay.Status, replay.Stdout, replay.Stderr)
	}
}

// TestWrongAlerts: rules that are wrong stop the start, with the place in the expression.
func TestWrongAlerts(t *testing.T) {
	harness.Require(t)
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := "alerts:\n  rules:\n    - {name: wide, when: 'drfit == \"wider\"', to: [ops]}\n  receivers: [{name: ops, webhook: {url: http://localhost}}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := harness.Run(t, []string{harness.StateOf(t), "PORTWATCHER_LOG_LEVEL=error"}, "run", "--config", path, "--health-socket=", "--listen=")
	if want := path + ":3: alerts.rules[0] (wide).when: unknown name drfit; did you mean drift?"; r.Status != 2 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "    ^") {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
}
