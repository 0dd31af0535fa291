package integration

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

const (
	// kills is how often portwatcher is killed in a storm, after some
	// more than killLines events of it at most.
	kills     = 20
	killLines = 5000
	// killTime is how old a batch of the journal may be, and killBatch twice the
	// largest, of which one is written while the next one gathers: what a kill can
	// cost.
	killTime  = 100 * time.Millisecond
	killBatch = 2 * 4096
)

// Killed twenty times in the middle of a storm, portwatcher repeats no id, loses
// no more than its last batch, and corrects the state at the next start.
func TestMemoryKill(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	stormy := idle(t, "stormy")
	steady := start(t, "steady", 4, nil, "--tcp", "0.0.0.0:80,127.0.0.1:81", "--udp", "0.0.0.0:53,[::]:54")
	open := listening(t, steady, 4)
	var rounds [][]string
	var changing *harness.Exec
	for round := range kills + 1 {
		recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
		if round > 0 {
			recording.WaitLine(t, `"type":"gap"`, "portwatcher was not running", "it had not stopped in order")
		}
		harness.WaitJournal(t, state, open)
		if round == kills {
			recording.Stop(t)
			rounds = append(rounds, recording.Printed(t))
			break
		}
		raging := inStorm(t, stormy, 4000)
		recording.WaitReported(t, 500+rand.IntN(killLines))
		recording.Kill(t)
		raging.stop()
		rounds = append(rounds, recording.Printed(t))
		switch round % 5 { // something happens while it is away, too
		case 1:
			changing = steady.Exec(t, "listen", "--tcp", "0.0.0.0:90")
			open = listening(t, steady, 5)
		case 3:
			changing.Stop(t)
			open = listening(t, steady, 4)
		}
		if round%5 == 0 || round == kills-1 {
			if found := harness.Integrity(t, state); found != "ok" {
				t.Fatalf("killed %d times, the database is damaged: %s", round+1, found)
			}
		}
	}
	recorded := harness.JournalLines(t, state)
	compareKilled(t, recorded, rounds)
	if difference := harness.Difference(foldStorm(t, recorded), open); difference != "" {
		t.Errorf("open by the journal's events: %s", difference)
	}
}

// storming is a storm that lasts until it is stopped.
type storming struct {
	over  atomic.Bool
	ended chan struct{}
}

// inStorm opens and closes a port of the container as fast as it can, until it is
// stopped, which it sees after each count of times.
func inStorm(t *testing.T, container *harness.Container, count int) *storming {
	t.Helper()
	s := &storming{ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for !s.over.Load() {
			_, err := container.RunFacts("storm", "--count", itoa(count), "--port", itoa(stormPort))
			// It ends where a reader of /proc holds the port for a moment.
			if err != nil && !strings.Contains(err.Error(), "address already in use") {
				t.Error(err)
				return
			}
		}
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *storming) stop() {
	s.over.Store(true)
	<-s.ended
}

// compareKilled compares the journal with what was printed in each run of portwatcher, all
// but the last of which ended by a kill.
func compareKilled(t *testing.T, recorded []string, rounds [][]string) {
	t.Helper()
	journal := make(map[uint64]string, len(recorded))
	for _, line := range recorded {
		journal[harness.LineID(t, line)] = line
	}
	last, inBoth, lost := uint64(0), 0, 0
	for round, printed := range rounds {
		var missing []string
		for i, line := range printed {
			id := harness.LineID(t, line)
			if id <= last || i > 0 && id != last+1 {
				t.Fatalf("round %d: the id does not follow %d: %s", round, last, line)
			}
			last = id
			switch found := journal[id]; {
			case found == line && len(missing) == 0:
				inBoth++
			case found == "":
				missing = append(missing, line)
			default:
				t.Fatalf("round %d: the journal has\n%s\nafter %d that it lacks, but this was printed:\n%s", round, found, len(missing), line)
			}
			delete(journal, id)
		}
		lost += len(missing)
		if len(missing) == 0 {
			continue
		}
		end := harness.ParseEvent(t, printed[len(printed)-1]).Time
		late := slices.IndexFunc(missing, func(line string) bool { return end.Sub(harness.ParseEvent(t, line).Time) <= killTime })
		if late > killBatch || round == len(rounds)-1 {
			t.Errorf("round %d: %d of %d printed events are missing from the journal, %d of them older than %v", round, len(missing), len(printed), late, killTime)
		}
	}
	t.Logf("%d events are printed and recorded, %d were lost by %d kills, and %d are recorded only", inBoth, lost, len(rounds)-1, len(journal))
	// What is recorded only was about to be printed when portwatcher was killed.
	for id, line := range journal {
		following := func(printed []string) bool {
			return len(printed) > 0 && id > harness.LineID(t, printed[len(printed)-1])
		}
		if round := slices.IndexFunc(rounds, func(printed []string) bool { return !following(printed) }); round == 0 || round < 0 {
			t.Errorf("this was recorded, and never about to be printed: %s", line)
		}
	}
}

// foldStorm is [harness.Folded], but for the many lines of a storm, which it
// counts.
func foldStorm(t *testing.T, lines []string) []harness.Listener {
	t.Helper()
	open := false
	var others []string
	for _, line := range lines {
		if !strings.Contains(line, `,"port":`+itoa(stormPort)+",") {
			others = append(others, line)
			continue
		}
		if strings.Contains(line, `"type":"burst"`) {
			continue // it changes nothing of what is open
		}
		opens := strings.Contains(line, `"type":"opened"`)
		if opens == open {
			t.Errorf("opens what is open, or closes what is not: %s", line)
		}
		open = opens
	}
	if open {
		t.Error("the storm's port is open by the journal, long after the storm")
	}
	return harness.Folded(t, others)
}

// Stopped in the middle of a storm, portwatcher has recorded all that it has
// printed, within the time that the engine gives it.
func TestMemoryStopInStorm(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	state := t.TempDir() + "/portwatcher.db"
	stormy := idle(t, "stormy")
	recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
	mark(t, recording, stormy, 1000)
	raging := inStorm(t, stormy, 20_000)
	recording.WaitReported(t, 20_000)
	took := recording.Stop(t)
	raging.stop()
	if limit := 10 * time.Second; took > limit { // stop_grace_period of the Compose file
		t.Errorf("it took %v to stop, longer than %v", took, limit)
	}
	sameLines(t, "the journal", harness.JournalLines(t, state), recording.Printed(t))
	t.Logf("stopped after %d events in %v", len(recording.Printed(t)), took)
	if found := harness.Integrity(t, state); found != "ok" {
		t.Error(found)
	}
}
