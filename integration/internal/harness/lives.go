package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Moment is when something happened: between the time before a system call and
// the time after it.
type Moment struct{ Before, After time.Time }

// Holds says whether a time lies in the moment, within the precision that
// clocks of the kernel and of a program have beside each other.
func (m Moment) Holds(at time.Time) bool {
	const precision = 2 * time.Millisecond
	return !at.Before(m.Before.Add(-precision)) && !at.After(m.After.Add(precision))
}

// Life is a port that the workload opened and closed, as it says itself.
type Life struct {
	Protocol, Address string
	Port              int
	PID               int // in its own pid namespace
	Opened, Closed    Moment
}

// ReadLives reads the lives from the facts that the workload wrote. A port
// that has not been closed yet is none. The sum is how many operations its
// summaries stand for.
func ReadLives(facts string) (lives []Life, sum int, err error) {
	type endpoint struct {
		protocol, address string
		port              int
	}
	open := make(map[endpoint]Life)
	for line := range strings.Lines(facts) {
		var fact struct {
			Action            string
			Time, After       time.Time
			Protocol, Address string
			Port, PID, Count  int
		}
		if err := json.Unmarshal([]byte(line), &fact); err != nil {
			return nil, 0, fmt.Errorf("read a fact of the workload: %q: %w", line, err)
		}
		at, moment := endpoint{fact.Protocol, fact.Address, fact.Port}, Moment{fact.Time, fact.After}
		switch fact.Action {
		case "opened":
			open[at] = Life{fact.Protocol, fact.Address, fact.Port, fact.PID, moment, Moment{}}
		case "closed":
			life := open[at]
			life.Closed = moment
			lives = append(lives, life)
			delete(open, at)
		case "summary":
			sum += fact.Count
		}
	}
	return lives, sum, nil
}

// RunLives runs a workload command in the container, as with docker exec, to
// its end. Beside an error it returns what was done before. It is safe to call
// from any goroutine.
func (c *Container) RunLives(arguments ...string) ([]Life, int, error) {
	command := exec.Command("docker", slices.Concat([]string{"exec", c.ID, WorkloadPath}, arguments)...)
	command.Env = c.engine.environment()
	var stderr strings.Builder
	command.Stderr = &stderr
	facts, err := command.Output()
	if err != nil {
		err = fmt.Errorf("workload %q in %s: %w: %s", arguments, c.Name, err, &stderr)
	}
	lives, sum, factsErr := ReadLives(string(facts))
	return lives, sum, errors.Join(err, factsErr)
}

// Lives is [Container.RunLives] for a test that cannot go on without it.
func (c *Container) Lives(t testing.TB, arguments ...string) []Life {
	t.Helper()
	lives, _, err := c.RunLives(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	if len(lives) == 0 {
		t.Fatalf("the workload %q has opened and closed nothing", arguments)
	}
	return lives
}
