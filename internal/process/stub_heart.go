package process

import "portwatcher/internal/port"

type Cache struct{ f *Finder }

func NewCache(f *Finder) *Cache { return &Cache{f} }

func (c *Cache) Describe(pid int, name string) []port.Process {
	p := c.f.Describe(pid)
	if p.Name != name {
		p = port.Process{PID: pid, Name: name}
	}
	return []port.Process{p}
}
