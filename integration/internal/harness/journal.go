package harness

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// JournalLines returns what `portwatcher events --format json` prints of the
// journal in the file state. It fails the test where the ids do not rise.
func JournalLines(t testing.TB, state string, arguments ...string) []string {
	t.Helper()
	result := Run(t, []string{"PORTWATCHER_STATE=" + state}, slices.Concat([]string{"events", "--format", "json"}, arguments)...)
	if result.Status != 0 || result.Stderr != "" {
		t.Fatalf("events %q: exit status %d, want 0 and no message: %s", arguments, result.Status, result.Stderr)
	}
	lines := strings.Split(result.Stdout, "\n")
	last := uint64(0)
	for _, line := range lines[:len(lines)-1] {
		id := LineID(t, line)
		if id <= last {
			t.Fatalf("events %q: the id is not above %d: %s", arguments, last, line)
		}
		last = id
	}
	return lines[:len(lines)-1]
}

// LineID returns the id of an event that is printed as JSON.
func LineID(t testing.TB, line string) uint64 {
	t.Helper()
	number, _, _ := strings.Cut(strings.TrimPrefix(line, `{"id":`), ",")
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		t.Fatalf("no event: %q: %v", line, err)
	}
	return id
}

// PortsAt runs `portwatcher ports --at` on the journal in the file state, for
// the test's own containers, and returns what was open, and its standard error.
func PortsAt(t testing.TB, state, at string) (open []Listener, messages string) {
	t.Helper()
	open, messages, err := portsAt(t, state, at)
	if err != nil {
		t.Fatal(err)
	}
	return open, messages
}

func portsAt(t testing.TB, state, at string) (open []Listener, messages string, err error) {
	t.Helper()
	result := Run(t, []string{"PORTWATCHER_STATE=" + state, "MONITOR_CONTAINERS=" + Pattern(t)}, "ports", "--format", "json", "--at", at)
	var ports []model.Open
	if err := json.Unmarshal([]byte(result.Stdout), &ports); err != nil || result.Status != 0 {
		return nil, "", fmt.Errorf("ports --at %s: exit status %d, %w: %s%s", at, result.Status, err, result.Stdout, result.Stderr)
	}
	for i := range ports {
		open = append(open, ListenerOf(&ports[i].Listener))
	}
	return open, result.Stderr, nil
}

// WaitJournal waits until exactly these listeners are open by the journal in the
// file state.
func WaitJournal(t testing.TB, state string, listening ...[]Listener) {
	t.Helper()
	want := slices.Concat(listening...)
	Eventually(t, "what is open by the journal is what listens", func() string {
		open, _, err := portsAt(t, state, "now")
		if err != nil { // there may be no journal yet
			return err.Error()
		}
		return Difference(open, want)
	})
}

// Folded returns what is open by a journal's lines, by replaying them all. It
// fails the test where one opens what is open, or closes what is not.
func Folded(t testing.TB, lines []string) []Listener {
	t.Helper()
	ledger := truth.NewLedger()
	for _, line := range lines {
		ledger.SkipsIDs = true // ids may be missing after a kill
		ledger.Take(line)
	}
	for _, problem := range ledger.Problems {
		t.Errorf("the journal's events do not fit together: %s", problem)
	}
	return openIn(ledger)
}

// Integrity runs SQLite's own check on a copy of a journal that nobody writes, and returns
// what that finds: "ok" if nothing.
func Integrity(t testing.TB, state string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(state + suffix)
		if suffix != "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(copied+suffix, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var answer string
	QueryJournal(t, copied, "PRAGMA integrity_check", &answer)
	return answer
}

// QueryJournal runs one statement on a journal that nobody writes. The first
// column of the first row goes to answer, unless that is nil.
func QueryJournal(t testing.TB, state, statement string, answer any) {
	t.Helper()
	db, err := sql.Open("sqlite", state)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if answer == nil {
		_, err = db.Exec(statement)
	} else {
		err = db.QueryRow(statement).Scan(answer)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", state, statement, err)
	}
}

// LockJournal keeps others from writing the journal in the file state, until the test
// ends.
func LockJournal(t testing.TB, state string) {
	t.Helper()
	db, err := sql.Open("sqlite", state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	Eventually(t, "the journal can be locked", func() string {
		if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
			return err.Error()
		}
		return ""
	})
}

// WaitHealth waits until a health check of the instance behind the socket ends with this
// exit status, and returns its output.
func WaitHealth(t testing.TB, socket string, status int) (output string) {
	t.Helper()
	Eventually(t, "the health check's exit status", func() string {
		result := Run(t, []string{"PORTWATCHER_HEALTH_SOCKET=" + socket}, "healthcheck")
		output = result.Stdout + result.Stderr
		if result.Status != status {
			return output
		}
		return ""
	})
	return output
}

// Stamp is a time as a user writes it to --since, --until and --at.
func Stamp(at time.Time) string { return at.Format(time.RFC3339Nano) }
