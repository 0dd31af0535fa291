package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// toSchema3 makes a database of schema 4 one of schema 3.
const toSchema3 = "DROP TABLE alert_state; DROP TABLE deliveries; DROP TABLE drifts; ALTER TABLE origins DROP COLUMN started; PRAGMA user_version = 3;"

// A file of schema 3 keeps its events, and takes alerts and the starts of containers.
func TestSchema3TakesAlerts(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	want := &model.Event{ID: 1, Time: time.Now().UTC(), Type: model.Opened, Listener: model.Listener{
		Container: &model.ContainerRef{ID: "aaaabbbbcccc", Name: "web"}, Protocol: model.TCP, Port: 80,
	}}
	j.write(want)
	j.stop()
	change(t, path, toSchema3)
	j = start(t, Options{Path: path})
	wantEvents(t, "after the migration", events(t, j, Query{}), []*model.Event{want})
	if err := j.WriteAlerts(t.Context(), &AlertStep{Cursor: "alert", ID: 1, Whole: true}); err != nil {
		t.Error(err)
	}
}

// The start of a container is that of its latest event, also after portwatcher starts again.
func TestStartOfAContainer(t *testing.T) {
	path, now := temporary(t), time.Now().UTC()
	j := start(t, Options{Path: path})
	for id, started := range []time.Time{{}, now.Add(-time.Hour), now.Add(-time.Minute), {}} {
		j.write(&model.Event{ID: uint64(id + 1), Time: now, Type: model.Opened, Listener: model.Listener{
			Container: &model.ContainerRef{ID: "aaaabbbbcccc", Name: "web", StartedAt: started}, Protocol: model.TCP, Port: uint16(id + 1),
		}})
	}
	j.stop()
	for _, e := range events(t, start(t, Options{Path: path}), Query{}) {
		if !e.Container.StartedAt.Equal(now.Add(-time.Minute)) {
			t.Errorf("event %d: the container started at %s, want %s", e.ID, e.Container.StartedAt, now.Add(-time.Minute))
		}
	}
}

// TestOutboxModel compares the outbox with maps in memory, through restarts.
func TestOutboxModel(t *testing.T) {
	for _, path := range []string{temporary(t), ""} {
		seed := uint64(time.Now().UnixNano())
		random := rand.New(rand.NewPCG(seed, 1))
		j := start(t, Options{Path: path})
		state, deliveries, cursor := map[StateKey]string{}, map[uint64]Delivery{}, uint64(0)
		if err := j.WriteAlerts(t.Context(), &AlertStep{Cursor: "alert"}); !errors.Is(err, ErrAlertsLost) {
			t.Fatalf("a step where none was before: %v", err)
		}
		if err := j.WriteAlerts(t.Context(), &AlertStep{Cursor: "alert", Whole: true}); err != nil {
			t.Fatal(err)
		}
		for round := range 400 {
			switch random.IntN(6) {
			case 0, 1:
				cursor++
				step := &AlertStep{Cursor: "alert", ID: cursor, Put: map[StateKey]json.RawMessage{}, Whole: random.IntN(20) == 0}
				if step.Whole {
					clear(state)
				}
				for range random.IntN(4) {
					key := StateKey{fmt.Sprint(random.IntN(2)), fmt.Sprint(random.IntN(5))}
					if random.IntN(3) == 0 {
						step.Put[key] = nil
						delete(state, key)
						continue
					}
					step.Put[key] = json.RawMessage(fmt.Sprint(round))
					state[key] = fmt.Sprint(round)
				}
				for range random.IntN(3) {
					seq := uint64(round*10 + len(step.Deliveries) + 1)
					d := Delivery{Seq: seq, ID: fmt.Sprintf("node1/%d", seq), Receiver: fmt.Sprint("r", random.IntN(2)), State: DeliveryPending,
						Made: time.Unix(int64(round), 0).UTC(), Due: time.Unix(int64(round), 0).UTC(), Alerts: 1, Title: "a", Severity: "info", Digest: seq%2 == 0, Notification: json.RawMessage(`{}`)}
					step.Deliveries = append(step.Deliveries, d)
					deliveries[seq] = d
				}
				if err := j.WriteAlerts(t.Context(), step); err != nil {
					t.Fatal(err)
				}
			case 2, 3:
				receiver := fmt.Sprint("r", random.IntN(2))
				got, err := j.NextDelivery(t.Context(), receiver)
				if err != nil {
					t.Fatal(err)
				}
				want := first(deliveries, receiver)
				if (got == nil) != (want == nil) || got != nil && asJSON(t, got) != asJSON(t, want) {
					t.Fatalf("seed %d: next of %s is %s, want %s", seed, receiver, asJSON(t, got), asJSON(t, want))
				}
				if got == nil {
					continue
				}
				got.Tried++
				got.Tries = append(got.Tries, Try{Time: time.Unix(int64(round), 0).UTC(), Status: 500, Error: "no"})
				if got.State = DeliveryStates[random.IntN(3)]; got.State != DeliveryPending {
					got.Finished = time.Unix(int64(round), 0).UTC()
				}
				if err := j.RecordTry(t.Context(), got); err != nil {
					t.Fatal(err)
				}
				deliveries[got.Seq] = *got
			case 4:
				before := time.Unix(int64(round-100), 0)
				had := len(deliveries)
				trim(deliveries, before, 20)
				if deleted, err := j.TrimDeliveries(t.Context(), before, 20); err != nil || deleted != had-len(deliveries) {
					t.Fatalf("seed %d: %d were deleted (%v), want %d", seed, deleted, err, had-len(deliveries))
				}
			case 5:
				if path != "" && random.IntN(5) == 0 {
					j.stop()
					j = start(t, Options{Path: path})
				}
			}
			checkOutbox(t, j, seed, state, deliveries, cursor)
		}
		j.stop()
	}
}

func first(deliveries map[uint64]Delivery, receiver string) *Delivery {
	for _, seq := range slices.Sorted(maps.Keys(deliveries)) {
		if d := deliveries[seq]; d.Receiver == receiver && d.State == DeliveryPending {
			return &d
		}
	}
	return nil
}

func trim(deliveries map[uint64]Delivery, before time.Time, keep int) {
	kept := 0
	all := slices.Sorted(maps.Keys(deliveries))
	for _, seq := range slices.Backward(all) {
		if d := deliveries[seq]; d.State != DeliveryPending {
			if kept++; kept > keep || d.Finished.Before(before) {
				delete(deliveries, seq)
			}
		}
	}
}

func checkOutbox(t *testing.T, j *running, seed uint64, state map[StateKey]string, deliveries map[uint64]Delivery, cursor uint64) {
	t.Helper()
	got, err := j.AlertState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts := map[StateKey]string{}
	for key, value := range got {
		texts[key] = string(value)
	}
	if !maps.Equal(texts, state) || got == nil {
		t.Fatalf("seed %d: the state is %v, want %v", seed, texts, state)
	}
	all, err := j.Deliveries(t.Context(), DeliveryQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var want []Delivery
	counts := map[string]int{}
	for _, seq := range slices.Sorted(maps.Keys(deliveries)) {
		d := deliveries[seq]
		d.Notification = nil
		want = slices.Insert(want, 0, d)
		counts[deliveries[seq].Receiver+" "+string(deliveries[seq].State)]++
	}
	if asJSON(t, all) != asJSON(t, want) {
		t.Fatalf("seed %d: the deliveries are\n%s\nwant\n%s", seed, asJSON(t, all), asJSON(t, want))
	}
	counted, err := j.CountDeliveries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counted {
		if name := c.Receiver + " " + string(c.State); counts[name] != c.Count {
			t.Fatalf("seed %d: %s are %d, want %d", seed, name, c.Count, counts[name])
		}
	}
	if id, found, err := j.Cursor("alert"); err != nil || !found && cursor > 0 || id != cursor {
		t.Fatalf("seed %d: the cursor is %d (%v), want %d", seed, id, err, cursor)
	}
}

// A database that is removed while it is used takes the outbox with it: the next step reports
// that.
func TestOutboxOfANewDatabase(t *testing.T) {
	path := temporary(t)
	j := start(t, Options{Path: path})
	step := &AlertStep{Cursor: "alert", ID: 1, Whole: true}
	if err := j.WriteAlerts(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	step = &AlertStep{Cursor: "alert", ID: 2}
	if err := j.WriteAlerts(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && suffix == "" {
			t.Fatal(err)
		}
	}
	j.writer.check <- struct{}{}
	within(t, func() bool { return errors.Is(j.WriteAlerts(t.Context(), step), ErrAlertsLost) })
	step.Whole = true
	if err := j.WriteAlerts(t.Context(), step); err != nil {
		t.Error(err)
	}
}

// What retention deletes before a consumer has read it is counted and reported, and nothing
// else is.
func TestRetentionPassesACursor(t *testing.T) {
	now := time.Now().UTC()
	passed := make(chan uint64, 10)
	j := start(t, Options{Path: temporary(t), Passed: func(n uint64) { passed <- n }})
	if err := j.WriteAlerts(t.Context(), &AlertStep{Cursor: "alert", ID: 3, Whole: true}); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(10) {
		j.write(&model.Event{ID: id + 1, Time: now.Add(-20 * time.Hour), Type: model.Gap})
	}
	j.SetRetention(10*time.Hour, 0)
	j.writer.trim.timer.Reset(0)
	if got := <-passed; got != 7 || j.Stats().Passed != 7 {
		t.Errorf("%d events were passed, %d in the status, want 7", got, j.Stats().Passed)
	}
	if err := j.WriteAlerts(t.Context(), &AlertStep{Cursor: "alert", ID: 20, Off: true}); err != nil {
		t.Fatal(err)
	}
	if _, found, err := j.Cursor("alert"); found || err != nil {
		t.Errorf("the cursor is there (%v), want none where nobody evaluates", err)
	}
	j.write(&model.Event{ID: 21, Time: now.Add(-20 * time.Hour), Type: model.Gap})
	j.writer.trim.timer.Reset(0)
	within(t, func() bool { first, _, err := j.Bounds(t.Context()); return err == nil && first == 0 })
	if n := j.Stats().Passed; n != 7 {
		t.Errorf("%d events were passed without a cursor, want 7", n)
	}
}
