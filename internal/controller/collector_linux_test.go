package controller

import (
	"slices"
	"sync"
)

// collector keeps what it is offered, unless it is full.
type collector[T any] struct {
	mutex sync.Mutex
	taken []T
	full  bool // it takes nothing
}

func (c *collector[T]) offer(value T) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.full {
		c.taken = append(c.taken, value)
	}
	return !c.full
}

func (c *collector[T]) setFull(full bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.full = full
}

// all returns what was taken so far.
func (c *collector[T]) all() []T {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Clone(c.taken)
}
