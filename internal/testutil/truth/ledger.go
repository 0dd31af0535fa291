package truth

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"portwatcher/internal/model"
)

// Account is what was reported of one container.
type Account struct {
	// Listed were reported one by one, Bursts counted in bursts.
	Listed, Bursts Count
	// Lost is the sum of the gaps that name the container.
	Lost uint64
	// Early are the events that are earlier than the event of the same endpoint before
	// them, by how much.
	Early []time.Duration
}

// reported is the sum of Listed and Bursts.
func (a *Account) reported() Count { return a.Listed.Add(a.Bursts) }

// Ledger adds up what one portwatcher reported, and folds its events into what is open.
type Ledger struct {
	// Accounts are those of the containers by id; see [Ledger.Account].
	Accounts map[string]*Account
	// Open are the events that opened what is open now, or changed it last.
	Open map[model.Endpoint]Event
	// Gaps are all gaps but those of another consumer than standard output.
	Gaps []Event
	// Lost is the sum of the gaps that name no container. Unnumbered is how many gaps
	// have no number.
	Lost       uint64
	Unnumbered int
	// Problems are the events that break the contract, or do not fit to those before.
	Problems []Problem
	// LastID is the id of the last event, 0 before the first.
	LastID uint64
	// SkipsIDs allows that the next event leaves ids out, as after a SIGKILL.
	SkipsIDs bool

	reader Reader
	latest map[model.Endpoint]time.Time
}

// NewLedger returns a ledger without an entry.
func NewLedger() *Ledger {
	return &Ledger{Accounts: map[string]*Account{}, Open: map[model.Endpoint]Event{}, latest: map[model.Endpoint]time.Time{}}
}

// Continue returns a ledger for the portwatcher that goes on with the journal of this
// one: what is open and the last id stay.
func (l *Ledger) Continue() *Ledger {
	next := NewLedger()
	next.Open, next.LastID, next.SkipsIDs = maps.Clone(l.Open), l.LastID, l.SkipsIDs
	return next
}

// AcceptHost sets whether the host's own ports are reported.
func (l *Ledger) AcceptHost(accept bool) { l.reader.Host = accept }

// Account returns the account of a container by its id.
func (l *Ledger) Account(container string) *Account {
	a := l.Accounts[container]
	if a == nil {
		a = &Account{}
		l.Accounts[container] = a
	}
	return a
}

// Take enters the next line and returns its event.
func (l *Ledger) Take(line string) Event {
	event, err := l.reader.Read(line)
	if err == nil && l.LastID != 0 && event.ID != l.LastID+1 && !(l.SkipsIDs && event.ID > l.LastID) {
		err = fmt.Errorf("its id is not one more than %d", l.LastID)
	}
	l.LastID, l.SkipsIDs = event.ID, false
	if err != nil {
		l.Problems = append(l.Problems, Problem{Kind: Broken, Text: err.Error() + ": " + line})
		return event
	}
	switch event.Type {
	case model.Gap:
		l.takeGap(&event)
	case model.Bursts:
		a := l.Account(event.Endpoint().Container)
		a.Bursts = a.Bursts.Add(Count{event.Burst.Opened, event.Burst.Closed})
	case model.Drifted: // changes nothing of what is open
	case model.Changed:
		l.takeChanged(&event)
	default:
		l.takeChange(&event)
	}
	return event
}

func (l *Ledger) takeGap(gap *Event) {
	if gap.OfOtherConsumer() {
		return
	}
	l.Gaps = append(l.Gaps, *gap)
	switch {
	case gap.Lost == 0:
		l.Unnumbered++
	case gap.Container == nil:
		l.Lost += gap.Lost
	default:
		l.Account(gap.Endpoint().Container).Lost += gap.Lost
	}
}

// takeChanged enters a change of an open endpoint. What it was before a change of the exposure
// is as the events so far have it.
func (l *Ledger) takeChanged(event *Event) {
	endpoint := event.Endpoint()
	if known, open := l.Open[endpoint]; open && event.Change == model.ChangeExposure &&
		(event.PreviousExposure != known.Exposure || !slices.Equal(event.PreviousPublished, known.Published)) {
		l.Problems = append(l.Problems, Problem{Kind: WrongReach, Container: event.Endpoint().Container,
			Text: fmt.Sprintf("its exposure was %s %v by the event before: %s", known.Exposure, known.Published, event.Line)})
	}
	l.Open[endpoint] = *event
}

// takeChange enters an opening or a closing.
func (l *Ledger) takeChange(event *Event) {
	endpoint, account := event.Endpoint(), l.Account(event.Endpoint().Container)
	if before := l.latest[endpoint]; event.Time.Before(before) {
		account.Early = append(account.Early, before.Sub(event.Time))
	}
	l.latest[endpoint] = event.Time
	_, open := l.Open[endpoint]
	if opens := event.Type == model.Opened; opens == open {
		what := map[bool]string{true: "opens what is open already", false: "closes what is not open"}[opens]
		l.Problems = append(l.Problems, Problem{Kind: Unordered, Container: event.Endpoint().Container, Text: what + ": " + event.Line})
	}
	if event.Type == model.Opened {
		l.Open[endpoint] = *event
		account.Listed.Opened++
	} else {
		delete(l.Open, endpoint)
		account.Listed.Closed++
	}
}

// String sums up what was reported of all containers.
func (l *Ledger) String() string {
	var listed, bursts Count
	lost, early := l.Lost, 0
	for _, a := range l.Accounts {
		listed, bursts, lost, early = listed.Add(a.Listed), bursts.Add(a.Bursts), lost+a.Lost, early+len(a.Early)
	}
	return fmt.Sprintf("%v as events, %v in bursts, %d in %d gaps, of which %d have no number; %d events are earlier than the one before",
		listed, bursts, lost, len(l.Gaps), l.Unnumbered, early)
}
