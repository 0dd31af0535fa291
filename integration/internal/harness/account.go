package harness

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Happened is how often a container really opened and closed a port.
type Happened struct{ Opened, Closed uint64 }

// Add adds what happened besides.
func (h Happened) Add(more Happened) Happened {
	return Happened{h.Opened + more.Opened, h.Closed + more.Closed}
}

func (h Happened) String() string {
	return fmt.Sprintf("%d openings and %d closings", h.Opened, h.Closed)
}

// Account is what was reported of one container.
type Account struct {
	// Events were reported one by one, Bursts counted in bursts.
	Events, Bursts Happened
	// Lost is the sum of the gaps that name the container.
	Lost uint64
	// Disordered are events that are earlier than the one of the same endpoint before
	// them, by how much. Where some are counted the moments at the edges of a burst are
	// not exact, and this may be.
	Disordered []time.Duration
	// Open are the endpoints that are open by the events.
	Open map[string]bool
	// latest are the times of the latest events of the endpoints.
	latest map[string]time.Time
}

// Reported is the sum of events and bursts.
func (a *Account) Reported() Happened { return a.Events.Add(a.Bursts) }

// Ledger has an account for each container, of the events of one portwatcher.
type Ledger struct {
	// Accounts are the accounts by container id.
	Accounts map[string]*Account
	// Gaps are all gaps, but those that say what another consumer than the one whose
	// events these are has missed.
	Gaps []Event
	// Lost is the sum of the gaps that name no container, Unnumbered how many gaps
	// have no number.
	Lost       uint64
	Unnumbered int
	// Problems are what in the events breaks the contract.
	Problems []string

	known map[string]Event // by shape
}

// NewLedger returns a ledger without an entry.
func NewLedger() *Ledger {
	return &Ledger{Accounts: map[string]*Account{}, known: map[string]Event{}}
}

// Account returns the account of a container, by its id.
func (l *Ledger) Account(container string) *Account {
	a := l.Accounts[container]
	if a == nil {
		a = &Account{Open: map[string]bool{}, latest: map[string]time.Time{}}
		l.Accounts[container] = a
	}
	return a
}

// Take enters one line of events as JSON, and returns the event. The lines come in
// order.
func (l *Ledger) Take(line string) Event {
	event, problem := l.read(strings.TrimSuffix(line, "\n"))
	switch {
	case problem != "":
	case event.Type == "gap":
		l.takeGap(&event)
	case event.Type == "burst":
		a := l.Account(event.Container.ID)
		a.Bursts = a.Bursts.Add(Happened{*event.Opened, *event.Closed})
	case event.Type != "changed":
		problem = l.Account(event.Container.ID).take(&event)
	}
	if problem != "" {
		l.Problems = append(l.Problems, problem+": "+line)
	}
	return event
}

// read parses a line. A storm's lines are too many for that: of openings and closings
// that differ in no more than their times only the first is parsed as a whole, and the
// others take opened_at and open_seconds from it.
func (l *Ledger) read(line string) (event Event, problem string) {
	head, rest, _ := strings.Cut(line, `,"type":`)
	shape, _, _ := strings.Cut(rest, `,"opened_at":`)
	event, found := l.known[shape]
	if !found {
		event, problem = parseEvent(line, time.Now())
		if problem == "" && (event.Type == "opened" || event.Type == "closed") {
			l.known[shape] = event
		}
		return event, problem
	}
	number, stamp, _ := strings.Cut(strings.TrimPrefix(head, `{"id":`), `,"time":`)
	var idErr, timeErr error
	event.ID, idErr = strconv.ParseUint(number, 10, 64)
	event.Time, timeErr = time.Parse(time.RFC3339Nano, strings.Trim(stamp, `"`))
	if err := errors.Join(idErr, timeErr); err != nil {
		return event, err.Error()
	}
	event.Line = line
	return event, ""
}

// otherConsumer marks the gap of a consumer that is not standard output.
const otherConsumer = "missing from the journal"

func (l *Ledger) takeGap(gap *Event) {
	if strings.Contains(gap.Reason, otherConsumer) {
		return
	}
	l.Gaps = append(l.Gaps, *gap)
	switch {
	case gap.Lost == 0:
		l.Unnumbered++
	case gap.Container == nil:
		l.Lost += gap.Lost
	default:
		l.Account(gap.Container.ID).Lost += gap.Lost
	}
}

// take enters an opening or a closing, and says what is wrong with it.
func (a *Account) take(event *Event) (problem string) {
	endpoint := event.endpoint()
	opens := event.Type == "opened"
	if early := a.latest[endpoint].Sub(event.Time); !a.latest[endpoint].IsZero() && early > 0 {
		a.Disordered = append(a.Disordered, early)
	}
	a.latest[endpoint] = event.Time
	if opens == a.Open[endpoint] {
		problem = "opens what is open, or closes what is not"
	}
	if opens {
		a.Open[endpoint] = true
		a.Events.Opened++
	} else {
		delete(a.Open, endpoint)
		a.Events.Closed++
	}
	return problem
}

// othersLost is how many openings and closings of a container's gaps may be none, where
// the gaps are of lost notifications: those of clients, and of other programs that look
// at the namespace, are among them.
const othersLost = 32

// Judge holds the accounts against what really happened in each container, all of which
// are closed in the end, and returns what is wrong. Where no gap is without a number,
// every opening and closing is accounted for; where one is, nothing is reported too
// often. Exact says that the numbers of gaps are of openings and closings alone, and that
// the moments of events are those of the kernel, as with eBPF.
func (l *Ledger) Judge(happened map[string]Happened, exact bool) (problems []string) {
	tolerance := uint64(othersLost)
	if exact {
		tolerance = 0
	}
	var missing, lost uint64
	for id, truth := range happened {
		a := l.Account(id)
		reported := a.Reported()
		short := id[:min(12, len(id))]
		if exact && len(a.Disordered) > 0 && a.Bursts == (Happened{}) {
			problems = append(problems, fmt.Sprintf("container %s: events are earlier than those before them, by %v", short, a.Disordered))
		}
		if len(a.Open) > 0 {
			problems = append(problems, fmt.Sprintf("container %s: reported open in the end: %v", short, a.Open))
		}
		if reported.Opened > truth.Opened || reported.Closed > truth.Closed {
			problems = append(problems, fmt.Sprintf("container %s: reported %v, more than happened: %v", short, reported, truth))
			continue
		}
		its := truth.Opened - reported.Opened + truth.Closed - reported.Closed
		if its+tolerance < a.Lost {
			problems = append(problems, fmt.Sprintf("container %s: %d are in gaps, and only %d are missing", short, a.Lost, its))
		}
		missing += its
		lost += min(a.Lost, max(its, a.Lost-min(a.Lost, tolerance)))
	}
	// A gap that names no container may stand for another's besides.
	if l.Unnumbered == 0 && (missing < lost || missing > lost+l.Lost) {
		problems = append(problems, fmt.Sprintf("%d openings and closings are neither an event, nor in a burst, nor in the number of a gap: "+
			"%d are missing, %d are in gaps of their containers and %d in others", int64(missing)-int64(lost+l.Lost), missing, lost, l.Lost))
	}
	slices.Sort(problems)
	return problems
}

// String says what was reported of all containers.
func (l *Ledger) String() string {
	var events, bursts Happened
	lost, disordered := l.Lost, 0
	for _, a := range l.Accounts {
		disordered += len(a.Disordered)
		events, bursts, lost = events.Add(a.Events), bursts.Add(a.Bursts), lost+a.Lost
	}
	return fmt.Sprintf("%v as events, %v in bursts, %d in %d gaps, of which %d have no number; %d events are earlier than the one before",
		events, bursts, lost, len(l.Gaps), l.Unnumbered, disordered)
}
