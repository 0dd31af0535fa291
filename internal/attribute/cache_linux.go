package attribute

import (
	"container/list"
	"time"

	"portwatcher/internal/model"
)

// How long the details of a process are used.
const (
	// freshFor: without any check.
	freshFor = time.Second
	// readFor: where a check finds that the process is the same.
	readFor = 10 * time.Second
	// maxCached is the number of processes kept; the one whose details were used
	// least recently is dropped first.
	maxCached = 4096
)

// Cache keeps the details of processes, so that a process that opens thousands of
// ports is not read for each of them. Details are keyed by pid and name, and belong
// to one process: as long as it lives its folder is the same inode. Details of the
// last second are returned without a system call; older ones need one, and after
// 10 s they are read again, since a process can change its user and program.
//
// A Cache is not safe for concurrent use.
type Cache struct {
	finder  *Finder
	now     func() time.Time
	entries map[cacheKey]*list.Element // of *cached
	used    list.List                  // the most recently used first
	folders folders
}

type cacheKey struct {
	pid  int
	name string
}

type cached struct {
	key       cacheKey
	processes []model.Process
	inode     uint64    // of the process's folder; 0 where there was none
	read      time.Time // when the details were read
	checked   time.Time // when the process was last known to be the same
}

// NewCache returns an empty cache of what finder reads.
func NewCache(finder *Finder) *Cache {
	return &Cache{finder: finder, now: time.Now, entries: map[cacheKey]*list.Element{}, folders: folders{procRoot: finder.procRoot}}
}

// Describe returns the process of an event as the only element of a slice: pid and name
// are those of the event, and the rest comes from procRoot if the process exists and has
// that name. A process that has ended keeps, for 10 s, the details that were read while
// it lived.
//
// The slice is shared: neither the Cache nor its callers change it.
func (c *Cache) Describe(pid int, name string) []model.Process {
	key := cacheKey{pid, name}
	now := c.now()
	element, ok := c.entries[key]
	if !ok {
		return c.add(key, now)
	}
	c.used.MoveToFront(element)
	e := element.Value.(*cached)
	if now.Sub(e.checked) < freshFor {
		return e.processes
	}
	inode, err := c.folders.inode(pid)
	same := err == nil && inode == e.inode || gone(err) && e.inode != 0
	if e.checked = now; !same || now.Sub(e.read) >= readFor {
		e.inode, e.read = inode, now
		if processes := c.read(key); !equal(&processes[0], &e.processes[0]) {
			e.processes = processes
		}
	}
	return e.processes
}

func (c *Cache) add(key cacheKey, now time.Time) []model.Process {
	if len(c.entries) >= maxCached {
		oldest := c.used.Back()
		delete(c.entries, oldest.Value.(*cached).key)
		c.used.Remove(oldest)
	}
	e := &cached{key: key, read: now, checked: now}
	e.inode, _ = c.folders.inode(key.pid) // before the details: if they are of a later process, the next check finds it
	e.processes = c.read(key)
	c.entries[key] = c.used.PushFront(e)
	return e.processes
}

// read returns the details of a process, or pid and name alone.
func (c *Cache) read(key cacheKey) []model.Process {
	p := c.finder.describe(key.pid)
	if p.Name != key.name {
		p = model.Process{PID: key.pid, Name: key.name}
	}
	return []model.Process{p}
}

// equal compares the details of a process.
func equal(a, b *model.Process) bool {
	x, y := *a, *b
	if (x.UID == nil) != (y.UID == nil) || x.UID != nil && *x.UID != *y.UID {
		return false
	}
	x.UID, y.UID = nil, nil
	return x == y
}
