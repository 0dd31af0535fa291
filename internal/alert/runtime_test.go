package alert

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
)

const everyOpening = `
group_wait: 1s
rules: [{name: new, when: 'type == "opened"', to: [ops, chat]}]
receivers:
  - {name: ops, webhook: {url: "http://localhost"}}
  - {name: chat, webhook: {url: "http://localhost"}}
`

// inTime runs a test on a clock of its own, with the journal in a file and in memory.
func inTime(t *testing.T, test func(t *testing.T, path string)) {
	for name, path := range map[string]string{"in a file": filepath.Join(t.TempDir(), "journal.db"), "in memory": ""} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(t, path) }) })
	}
}

// A receiver that fails is tried again and again, in order; the other one gets everything at
// once.
func TestRetries(t *testing.T) {
	inTime(t, func(t *testing.T, path string) {
		var down atomic.Bool
		down.Store(true)
		ops := &taker{name: "ops", answer: func(int, *notify.Notification) notify.Outcome {
			if down.Load() {
				return refuse("it is down")
			}
			return notify.Outcome{Delivered: true}
		}}
		chat := &taker{name: "chat"}
		w := newWorld(t, path, everyOpening, ops, chat)
		w.giveUp = standardGiveUp
		w.restart()
		for port := 1; port <= 3; port++ {
			w.opened(port)
			time.Sleep(10 * time.Second)
		}
		if testing.Short() { // each minute of the journal takes its time
			time.Sleep(4 * time.Hour)
		} else {
			time.Sleep(24 * time.Hour)
		}
		wantList(t, "the other one", chat.rules(), "new web/1/tcp", "new web/2/tcp", "new web/3/tcp")
		tries := slices.Clone(ops.tries)
		for i, at := range []time.Duration{0, 5 * time.Second, 65 * time.Second, 365 * time.Second, 2165 * time.Second, 9365 * time.Second} {
			first := strings.Fields(tries[0])
			clock, err := time.Parse("15:04:05", first[1])
			if err != nil {
				t.Fatal(err)
			}
			if want := first[0] + " " + clock.Add(at).Format("15:04:05"); tries[i] != want {
				t.Errorf("try %d: %s, want %s", i, tries[i], want)
			}
		}
		if n := len(tries); n != 6 && testing.Short() || n != 16 && !testing.Short() {
			t.Errorf("%d tries, want 6 in four hours, 16 in a day", n)
		}
		status := w.alerts.Status().Receivers[0]
		if status.Pending != 3 || status.Problem != "it is down" || status.Failed != uint64(len(tries)) {
			t.Errorf("status %+v", status)
		}
		down.Store(false)
		time.Sleep(2 * time.Hour)
		wantList(t, "when it is back", ops.rules(), "new web/1/tcp", "new web/2/tcp", "new web/3/tcp")
		if status := w.alerts.Status().Receivers[0]; status.Pending != 0 || status.Delivered != 3 || status.Problem != "" {
			t.Errorf("status %+v", status)
		}
		all, err := w.journal.Deliveries(t.Context(), journal.DeliveryQuery{Receiver: "ops"})
		if err != nil || len(all) != 3 || all[2].Tried != len(tries)+1 || all[2].State != journal.DeliveryDelivered || !all[2].Tries[all[2].Tried-1].Delivered {
			t.Errorf("deliveries %+v, %v", all, err)
		}
	})
}

// After the time to give up, or where a receiver refuses for good, a delivery is dead; the next one is
// tried.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := &taker{name: "ops", answer: func(try int, n *notify.Notification) notify.Outcome {
			if strings.Contains(describe(n), "/1/tcp") {
				return refuse("never")
			}
			return notify.Outcome{Delivered: true}
		}}
		gone := false
		chat := &taker{name: "chat", answer: func(int, *notify.Notification) notify.Outcome {
			if gone {
				return notify.Outcome{Delivered: true}
			}
			gone = true
			return notify.Outcome{Status: 410, Gone: true, Err: errors.New("410 Gone")}
		}}
		w := newWorld(t, "", everyOpening, ops, chat)
		w.opened(1)
		time.Sleep(10 * time.Second)
		w.opened(2)
		time.Sleep(5 * time.Hour)
		wantList(t, "before that", ops.rules())
		wantList(t, "the one that is gone", chat.rules(), "new web/2/tcp")
		time.Sleep(4 * time.Hour)
		wantList(t, "after it", ops.rules(), "new web/2/tcp")
		for _, r := range w.alerts.Status().Receivers {
			if r.Dead != 1 || r.GivenUp != 1 || r.Pending != 0 || r.Delivered != 1 {
				t.Errorf("status %+v, want one dead", r)
			}
		}
		if log := w.log.String(); strings.Count(log, "is given up after") != 2 || !strings.Contains(log, "410 Gone") {
			t.Errorf("logged\n%s", log)
		}
	})
}

// A receiver that asks to wait is not tried before.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := &taker{name: "ops", answer: func(try int, _ *notify.Notification) notify.Outcome {
			if try == 0 {
				return notify.Outcome{Status: 429, RetryAfter: 10 * time.Minute, Err: errors.New("too many")}
			}
			return notify.Outcome{Delivered: true}
		}}
		w := newWorld(t, "", everyOpening, ops, &taker{name: "chat"})
		w.opened(1)
		time.Sleep(10 * time.Minute)
		if n := ops.count(); n != 1 {
			t.Errorf("%d tries, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := ops.count(); n != 2 {
			t.Errorf("%d tries, want 2", n)
		}
	})
}

// A receiver that hangs delays no other, and its try ends with the program: after the next start
// it is tried again with the same id.
func TestSlowReceiver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		ops := &taker{name: "ops"}
		ops.answer = func(try int, _ *notify.Notification) notify.Outcome {
			if try == 0 {
				<-hang
				return refuse("the program ends")
			}
			return notify.Outcome{Delivered: true}
		}
		chat := &taker{name: "chat"}
		w := newWorld(t, path, everyOpening, ops, chat)
		for port := 1; port <= 5; port++ {
			w.opened(port)
			time.Sleep(2 * time.Second)
		}
		if got := len(chat.rules()); got != 5 || ops.count() != 1 {
			t.Errorf("the other one has %d, want 5; the slow one was tried %d times", got, ops.count())
		}
		go func() {
			time.Sleep(time.Second)
			close(hang)
		}()
		w.restart()
		time.Sleep(time.Minute)
		if got := len(ops.rules()); got != 5 {
			t.Errorf("after the restart it has %d, want 5", got)
		}
		if a, b := strings.Fields(ops.tries[0])[0], strings.Fields(ops.tries[1])[0]; a != b {
			t.Errorf("the ids of two tries are %s and %s, want the same", a, b)
		}
		w.restart()
		time.Sleep(time.Hour)
		if got := len(ops.rules()) + len(chat.rules()); got != 10 {
			t.Errorf("another restart makes it %d, want 10", got)
		}
	})
}

// What happened while alerts were switched off is no news, and pending deliveries are kept.
func TestSwitchedOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		ops := &taker{name: "ops", answer: func(int, *notify.Notification) notify.Outcome {
			if down.Load() {
				return refuse("down")
			}
			return notify.Outcome{Delivered: true}
		}}
		w := newWorld(t, path, everyOpening, ops, &taker{name: "chat"})
		w.opened(1)
		time.Sleep(10 * time.Second)
		w.config = "{}"
		w.alerts.Apply(w.setup())
		time.Sleep(time.Second)
		w.opened(2)
		time.Sleep(time.Minute)
		w.restart()
		w.opened(3)
		time.Sleep(time.Minute)
		if _, found, err := w.journal.Cursor(CursorName); found || err != nil {
			t.Errorf("there is a cursor (%v), want none", err)
		}
		down.Store(false)
		w.config = everyOpening
		w.alerts.Apply(w.setup())
		time.Sleep(time.Minute)
		w.opened(4)
		time.Sleep(time.Minute)
		wantList(t, "taken", ops.rules(), "new web/1/tcp", "new web/4/tcp")
	})
}

// A condition with for waits for what the capture finds after a start.
func TestForAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		const gone = `
group_wait: 0s
rules: [{name: gone, when: 'type == "closed"', for: 30s, to: [ops]}]
receivers: [{name: ops, webhook: {url: "http://localhost"}}]
`
		ops := &taker{name: "ops"}
		w := newWorld(t, path, gone, ops)
		closed := func(e *model.Event) { e.Type = model.Closed }
		w.opened(1, closed)
		w.opened(2, closed)
		time.Sleep(2 * time.Second)
		w.stop()
		time.Sleep(time.Hour)
		w.unready.Store(true)
		w.start()
		time.Sleep(10 * time.Second)
		w.opened(1, func(e *model.Event) { e.Source = model.SourceRestart }) // it opened meanwhile
		time.Sleep(time.Second)
		wantList(t, "before the capture is ready", ops.rules())
		w.unready.Store(false)
		time.Sleep(5 * time.Second)
		wantList(t, "after", ops.rules(), "gone web/2/tcp")
	})
}

// An Alertmanager is sent what lasts again and again, until it ends.
func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rules = `
group_wait: 0s
repeat: 0
rules: [{name: drift, when: 'drift != ""', to: [am]}]
receivers: [{name: am, alertmanager: {url: "http://localhost"}}]
`
		am := &taker{name: "am", kind: notify.KindAlertmanager}
		w := newWorld(t, "", rules, am)
		drifts := func(e *model.Event) { e.Drift = model.DriftUnexpected }
		w.drifting(80)
		w.opened(80, drifts)
		time.Sleep(10*time.Minute + 30*time.Second)
		if n := am.count(); n != 11 {
			t.Errorf("it was sent %d times in 10 minutes, want 11", n)
		}
		w.drifting()
		w.opened(80, drifts, func(e *model.Event) { e.Type = model.Closed })
		time.Sleep(10 * time.Minute)
		got := am.rules()
		if len(got) != 13 || got[0] != "drift web/80/tcp" || got[11] != "drift web/80/tcp" || got[12] != "drift web/80/tcp resolved" {
			t.Errorf("it was sent %q", got)
		}
	})
}

// A database that is removed while it is used takes pending deliveries with it: that is logged,
// and what the rules know is not lost.
func TestNewDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		const rules = `
group_wait: 0s
rules: [{name: drift, when: 'drift != ""', to: [ops]}]
receivers: [{name: ops, webhook: {url: "http://localhost"}}]
`
		ops := &taker{name: "ops", answer: func(try int, _ *notify.Notification) notify.Outcome {
			if try < 2 {
				return refuse("down")
			}
			return notify.Outcome{Delivered: true}
		}}
		w := newWorld(t, path, rules, ops)
		drifts := func(e *model.Event) { e.Drift = model.DriftUnexpected }
		w.drifting(80)
		w.opened(80, drifts)
		time.Sleep(time.Second)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute) // the journal notices
		w.drifting()
		w.opened(80, drifts, func(e *model.Event) { e.Type = model.Closed })
		time.Sleep(2 * time.Minute)
		wantList(t, "taken", ops.rules(), "drift web/80/tcp resolved")
		if log := w.log.String(); !strings.Contains(log, "had not been delivered are lost") {
			t.Errorf("logged\n%s", log)
		}
	})
}

// Deliveries to a receiver that the settings have no more are given up, too.
func TestRemovedReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := &taker{name: "ops", answer: func(int, *notify.Notification) notify.Outcome { return refuse("down") }}
		chat := &taker{name: "chat"}
		w := newWorld(t, "", everyOpening, ops, chat)
		w.opened(1)
		time.Sleep(10 * time.Second)
		w.config = `
rules: [{name: new, when: 'type == "opened"', to: [chat]}]
receivers: [{name: chat, webhook: {url: "http://localhost"}}]
`
		w.alerts.Apply(w.setup())
		time.Sleep(time.Hour)
		if !ops.ended {
			t.Error("the receiver was not closed")
		}
		if r := w.alerts.Status().Receivers; len(r) != 2 || !r[1].Removed || r[1].Pending != 1 {
			t.Errorf("status %+v, want the removed one with its delivery", r)
		}
		time.Sleep(6 * time.Hour)
		if r := w.alerts.Status().Receivers; len(r) != 1 {
			t.Errorf("status %+v, want one receiver", r)
		}
		if log := w.log.String(); !strings.Contains(log, "no receiver of this name any more") {
			t.Errorf("logged\n%s", log)
		}
	})
}
