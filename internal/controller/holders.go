package controller

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/tracker"
)

const (
	// closeRounds is how many rounds go by until the processes that hold ports
	// are checked closely: for their names, and whether they wait to be reaped.
	closeRounds = 6
	// wholeLook is the least time between two look-ups of all ports: what neither
	// ends nor is renamed can fork, or give its socket away.
	wholeLook = 5 * time.Minute
	// A look-up is followed by a pause of this many times as long as it took, one
	// of all ports by a longer one: they take a fiftieth of a core at most, on a host
	// of very many processes that come and go all the time, and next to nothing
	// where none does.
	lookPause, wholeLookPause = 50, 20_000
)

// holders keeps the list of the processes that hold open ports right after the
// second look. Its fields belong to the one check that is under way.
type holders struct {
	underWay atomic.Bool
	lives    *process.Lives
	recorded []process.Recorded // reused
	rounds   int
	// gone are the pids whose ports have to be looked up.
	gone map[int]struct{}
	// Not before these: the next look-up, and the next of all ports.
	next, nextWhole time.Time
}

// refreshHolders checks, beside the caller, who holds open ports, unless the
// last check is still under way.
func (c *Controller) refreshHolders(ctx context.Context) {
	if c.holders.underWay.CompareAndSwap(false, true) {
		c.background.Go(func() {
			defer c.holders.underWay.Store(false)
			c.checkHolders(ctx)
		})
	}
}

// checkHolders looks whether the processes that hold open ports still are what
// they were, which costs a system call for each, and looks up anew who holds the
// ports of those that are not: all of them at once.
func (c *Controller) checkHolders(ctx context.Context) {
	h := &c.holders
	c.findGone()
	now := time.Now()
	if h.nextWhole.IsZero() {
		h.nextWhole = now.Add(wholeLook)
	}
	whole := !now.Before(h.nextWhole)
	if len(h.gone) == 0 && !whole || now.Before(h.next) {
		return
	}
	// What ends with the process is given the time to end, too: a server's
	// workers do not take it over.
	select {
	case <-ctx.Done():
		return
	case <-time.After(secondLook):
	}
	held := func(pid int) bool { _, ok := h.gone[pid]; return ok }
	if whole {
		held = nil
	}
	began := time.Now()
	if c.lookUp(held) != nil {
		return // and again in the next round
	}
	took := time.Since(began)
	clear(h.gone)
	h.next = time.Now().Add(lookPause * took)
	if whole {
		h.nextWhole = time.Now().Add(max(wholeLook, wholeLookPause*took))
	}
}

// findGone notes which of the processes that hold open ports are not what they
// were.
func (c *Controller) findGone() {
	h := &c.holders
	if h.lives == nil {
		h.lives, h.gone = process.NewLives(c.ProcRoot), map[int]struct{}{}
	}
	h.recorded = h.recorded[:0]
	c.mutex.Lock()
	c.tracker.Holders(func(p *port.Process) {
		h.recorded = append(h.recorded, process.Recorded{PID: p.PID, Name: p.Name})
	})
	c.mutex.Unlock()
	closely := h.rounds%closeRounds == 0
	h.rounds++
	pids, err := h.lives.Changed(nil, h.recorded, closely)
	c.tellTrouble(0, err)
	for _, pid := range pids {
		h.gone[pid] = struct{}{}
	}
}

// lookUp asks who holds the ports that some processes held, or all for nil, and
// takes the answer over. The error was told.
func (c *Controller) lookUp(held func(pid int) bool) error {
	c.mutex.Lock()
	holdings := c.tracker.Holdings(nil, held)
	c.mutex.Unlock()
	look, err := c.look(holdings)
	if err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.publish(c.tracker.Held(c.changes[:0], look))
	return nil
}

// look asks who holds sockets now. It does I/O, so the caller must not hold the
// lock. The error was told.
func (c *Controller) look(holdings []tracker.Holding) (tracker.Look, error) {
	look := tracker.Look{Began: time.Now(), Source: port.SourceProc}
	var inodes []uint32
	for i := range holdings {
		if holdings[i].Inode != 0 {
			inodes = append(inodes, holdings[i].Inode)
		}
	}
	if len(inodes) == 0 {
		return look, nil
	}
	found, err := c.Finder.Find(inodes)
	c.tellTrouble(0, err)
	if err != nil {
		return look, err
	}
	for _, h := range holdings {
		if h.Inode != 0 {
			h.Processes = withHidden(found.ByInode[h.Inode], h.Processes, found.Denied)
			look.Holdings = append(look.Holdings, h)
		}
	}
	look.Time = time.Now()
	exact, _ := c.now()
	look.Incomparable = exact && !process.HostProcesses(c.ProcRoot) // eBPF tells the host's pids
	return look, nil
}

// withHidden adds to those who were found the processes that were known and
// could not be looked into: they may still hold the socket.
func withHidden(found, known []port.Process, denied []int) []port.Process {
	if len(denied) == 0 {
		return found
	}
	all := slices.Clone(found)
	for _, p := range known {
		if slices.Contains(denied, p.PID) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b port.Process) int { return a.PID - b.PID })
	return all
}

// ending says that the container of a change is about to end: that those of its
// processes that end last hold a port for that moment is no news. The caller
// holds the lock; it is asked only where a process took a port over.
func (c *Controller) ending(change *tracker.Change) bool {
	return change.Type == port.Changed && process.Ending(c.ProcRoot, change.Container.PID)
}
