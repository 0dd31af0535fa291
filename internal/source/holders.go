package source

import (
	"context"
	"slices"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
	"portwatcher/internal/tracker"
)

const (
	// holderInterval is the time between two checks of the processes that hold ports.
	holderInterval = 10 * time.Second
	// closeRounds is how many checks go by until the processes are checked closely: for
	// their names, and whether they wait to be reaped.
	closeRounds = 6
	// wholeLookup is the least time between two look-ups of all ports: what neither ends
	// nor is renamed can fork, or give its socket away.
	wholeLookup = 5 * time.Minute
	// A look-up is followed by a pause of this many times as long as it took, one of all
	// ports by a longer one: they take a fiftieth of a core at most, on a host of very
	// many processes that come and go all the time, and next to nothing where none does.
	lookupPause, wholeLookupPause = 50, 20_000
)

// HolderCheck keeps the list of the processes that hold open ports right after the
// second look-up. It belongs to the goroutine of Run.
type HolderCheck struct {
	env      *Env
	lives    *attribute.Lives
	query    Holders
	holdings Holdings
	rounds   int
	// gone are the pids whose ports have to be looked up.
	gone map[int]struct{}
	// Not before these: the next look-up, and the next of all ports.
	next, nextWhole time.Time
}

// NewHolderCheck returns a check of what the capture of env knows.
func NewHolderCheck(env *Env) *HolderCheck {
	return &HolderCheck{
		env: env, lives: attribute.NewLives(env.ProcRoot), gone: map[int]struct{}{},
		nextWhole: time.Now().Add(wholeLookup),
	}
}

// Run checks from time to time until ctx ends.
func (h *HolderCheck) Run(ctx context.Context) {
	ticker := time.NewTicker(holderInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := protect(func() error { h.Check(ctx); return nil }); err != nil {
				h.env.Logger.WithError(err).Error("Who holds ports could not be checked; portwatcher tries again.")
			}
		}
	}
}

// Check finds out whether the processes that hold open ports still are what they were,
// which costs a system call for each, and looks up anew who holds the ports of those
// that are not: all of them at once.
func (h *HolderCheck) Check(ctx context.Context) {
	if !h.findGone() {
		return
	}
	now := time.Now()
	whole := !now.Before(h.nextWhole)
	if len(h.gone) == 0 && !whole || now.Before(h.next) {
		return
	}
	// What ends with the process needs a moment to end, too: a server's workers do not
	// take its ports over.
	if !clock.Sleep(ctx, secondLookup) {
		return
	}
	h.holdings.PIDs = h.gone
	if whole {
		h.holdings.PIDs = nil
	}
	if !h.env.ask(&h.holdings) {
		return
	}
	began := time.Now()
	held, err := h.env.lookUp(h.holdings.Holdings)
	if err != nil {
		return // and again in the next round
	}
	h.env.send(held)
	took := time.Since(began)
	clear(h.gone)
	h.next = time.Now().Add(lookupPause * took)
	if whole {
		h.nextWhole = time.Now().Add(max(wholeLookup, wholeLookupPause*took))
	}
}

// findGone notes which of the processes that hold open ports are not what they were.
// It returns false where the capture has ended.
func (h *HolderCheck) findGone() bool {
	h.query.Recorded = h.query.Recorded[:0]
	if !h.env.ask(&h.query) {
		return false
	}
	closely := h.rounds%closeRounds == 0
	h.rounds++
	pids, err := h.lives.Changed(nil, h.query.Recorded, closely)
	h.env.reportTrouble(0, err)
	for _, pid := range pids {
		h.gone[pid] = struct{}{}
	}
	return true
}

// lookUp finds out who holds sockets now. The error was logged.
func (e *Env) lookUp(holdings []tracker.Holding) (*Held, error) {
	held := &Held{Lookup: tracker.Lookup{Began: clock.Now(), Source: model.SourceProc}}
	var inodes []uint32
	for i := range holdings {
		if holdings[i].Inode != 0 {
			inodes = append(inodes, holdings[i].Inode)
		}
	}
	if len(inodes) == 0 {
		held.Lookup.Time = held.Lookup.Began
		return held, nil
	}
	found, err := e.Finder.Find(inodes)
	e.reportTrouble(0, err)
	if err != nil {
		return held, err
	}
	for _, h := range holdings {
		if h.Inode == 0 {
			continue
		}
		known := h.Processes
		h.Processes = withHidden(found.ByInode[h.Inode], known, found.Denied)
		held.Lookup.Holdings = append(held.Lookup.Holdings, h)
		if c := h.Container; c != nil && !sharesProcess(known, h.Processes) {
			if held.Ending == nil {
				held.Ending = map[string]bool{}
			}
			if _, checked := held.Ending[c.ID]; !checked {
				held.Ending[c.ID] = procfs.Ending(e.ProcRoot, c.PID)
			}
		}
	}
	held.Lookup.Time = clock.Now()
	// eBPF reports the host's pids.
	held.Lookup.Incomparable = e.Prober.Load() != nil && !procfs.HostProcesses(e.ProcRoot)
	return held, nil
}

// sharesProcess reports whether a process is in both lists, or one of them is empty.
func sharesProcess(a, b []model.Process) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(p model.Process) bool {
		return slices.ContainsFunc(b, func(q model.Process) bool { return p.PID == q.PID })
	})
}

// withHidden adds to those who were found the processes that were known and whose open
// files could not be listed: they may still hold the socket.
func withHidden(found, known []model.Process, denied []int) []model.Process {
	if len(denied) == 0 {
		return found
	}
	all := slices.Clone(found)
	for _, p := range known {
		if slices.Contains(denied, p.PID) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b model.Process) int { return a.PID - b.PID })
	return all
}

// lookUpFresh looks up once more who holds the sockets that opened lately, since servers
// fork their workers after they listen.
//
// Reading the link of an open file holds it for a moment, so that a close at that moment
// takes effect a little later than its process believes: what opens and closes a port in
// a loop is left alone, and only what has been open for secondLookup is looked up.
func (w *Watcher) lookUpFresh() {
	q := &w.fresh
	q.Watcher, q.Until, q.Holdings, q.More = w, clock.Now().Add(-secondLookup), q.Holdings[:0], false
	if !w.env.ask(q) {
		return
	}
	if q.More {
		w.setSecond()
	}
	w.busy()
	defer w.idle()
	held, err := w.env.lookUp(q.Holdings)
	if err != nil {
		return
	}
	held.Watcher = w
	w.env.send(held)
}
