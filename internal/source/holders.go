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
	// wholeLookup is the least time between two lookups of all ports: a process that neither
	// ends nor is renamed can fork, or pass its socket to another.
	wholeLookup = 5 * time.Minute
	// A lookup is followed by a pause of so many times its duration, a lookup of all ports
	// by a longer one: on a host of very many processes that come and go all the time they
	// take a fiftieth of a core at most.
	lookupPause, wholeLookupPause = 50, 20_000
)

// HolderCheck corrects the processes that hold open ports after the second lookup. It
// belongs to the goroutine of Run.
type HolderCheck struct {
	env      *Env
	lives    *attribute.Lives
	query    Holders
	holdings Holdings
	rounds   int
	// gone are the pids whose ports need a lookup.
	gone map[int]struct{}
	// next is the earliest time of the next lookup, nextWhole that of the next of all ports.
	next, nextWhole time.Time
}

// NewHolderCheck returns a check of the endpoints of env's capture.
func NewHolderCheck(env *Env) *HolderCheck {
	return &HolderCheck{
		env: env, lives: attribute.NewLives(env.ProcRoot), gone: map[int]struct{}{},
		nextWhole: time.Now().Add(wholeLookup),
	}
}

// Run checks from time to time until ctx ends.
func (h *HolderCheck) Run(ctx context.Context) {
	for clock.Sleep(ctx, clock.Rest(holderInterval)) {
		if err := protect(func() error { h.Check(ctx); return nil }); err != nil {
			h.env.Logger.WithError(err).Error("The processes that hold ports could not be checked; portwatcher tries again.")
		}
	}
}

// Check finds the processes that held open ports and have ended or changed, at the cost of
// a system call for each process, and looks up the holders of their ports, all together.
func (h *HolderCheck) Check(ctx context.Context) {
	if !h.findGone() {
		return
	}
	now := time.Now()
	whole := !now.Before(h.nextWhole)
	if len(h.gone) == 0 && !whole || now.Before(h.next) {
		return
	}
	// The children of the process need a moment to end, too: a server's workers do not
	// hold its ports for long.
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
		return // the next round tries again
	}
	h.env.send(held)
	took := time.Since(began)
	clear(h.gone)
	h.next = time.Now().Add(lookupPause * took)
	if whole {
		h.nextWhole = time.Now().Add(max(wholeLookup, wholeLookupPause*took))
	}
}

// findGone adds the processes that held open ports and have ended or changed to gone. It
// returns false after the end of the capture.
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

// lookUp finds the processes that hold sockets now. It logs the error.
func (e *Env) lookUp(holdings []tracker.Holding) (*Held, error) {
	held := &Held{Lookup: tracker.Lookup{Began: clock.Now(), Source: model.SourceProc}, Ending: map[string]bool{}}
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
		changed := len(known) > 0 && len(h.Processes) > 0 && !model.ShareProcess(known, h.Processes)
		if c := h.Container; c != nil && changed {
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

// withHidden adds to the found processes the known ones whose open files could not be
// listed: they may hold the socket.
func withHidden(found, known []model.Process, denied []int) []model.Process {
	if len(denied) == 0 {
		return found
	}
	hidden := slices.DeleteFunc(slices.Clone(known), func(p model.Process) bool { return !slices.Contains(denied, p.PID) })
	return model.MergeProcesses(found, hidden)
}

// lookUpFresh is the second lookup of the processes that hold the sockets which opened
// lately: servers fork their workers after they listen.
//
// Reading the link of an open file holds it for a moment, so that a close at that moment
// takes effect a little later than its process expects. Only sockets that have been open
// for secondLookup are looked up, so that a port which opens and closes in a loop is not
// disturbed.
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
