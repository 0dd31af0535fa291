package alert

import (
	"container/heap"
	"time"
)

// schedule orders conditions by when something is due.
type schedule struct {
	items []scheduled
}

type scheduled struct {
	at time.Time
	c  *condition
}

// set sets when something of a condition is due; the zero time is never.
func (s *schedule) set(c *condition, at time.Time) {
	switch {
	case at.IsZero():
		s.remove(c)
	case c.at < 0:
		heap.Push(s, scheduled{at, c})
	default:
		s.items[c.at].at = at
		heap.Fix(s, c.at)
	}
}

func (s *schedule) remove(c *condition) {
	if c.at >= 0 {
		heap.Remove(s, c.at)
	}
}

// first returns the condition that is due first, and when; nil for none.
func (s *schedule) first() (*condition, time.Time) {
	if len(s.items) == 0 {
		return nil, time.Time{}
	}
	return s.items[0].c, s.items[0].at
}

// Len, Less, Swap, Push and Pop implement [heap.Interface].
func (s *schedule) Len() int { return len(s.items) }

func (s *schedule) Less(i, j int) bool {
	a, b := &s.items[i], &s.items[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.c.Key < b.c.Key
}

func (s *schedule) Swap(i, j int) {
	s.items[i], s.items[j] = s.items[j], s.items[i]
	s.items[i].c.at, s.items[j].c.at = i, j
}

func (s *schedule) Push(x any) {
	item := x.(scheduled)
	item.c.at = len(s.items)
	s.items = append(s.items, item)
}

func (s *schedule) Pop() any {
	last := s.items[len(s.items)-1]
	s.items[len(s.items)-1] = scheduled{}
	s.items = s.items[:len(s.items)-1]
	last.c.at = -1
	return last
}
