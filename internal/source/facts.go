package source

import (
	"maps"

	"portwatcher/internal/probe"
)

// resolve sends facts until there are no more chunks. After an error it only receives, so
// that receive can end.
func (r *Reader) resolve() (err error) {
	for c := range r.chunks {
		if err == nil {
			if err = protect(func() error { r.sendChunk(c); return nil }); err != nil {
				r.stop()
			}
		}
		for _, done := range c.ends {
			close(done)
		}
		*c = chunk{events: c.events[:0]}
		r.unused.Give(c)
	}
	return err
}

func (r *Reader) sendChunk(c *chunk) {
	if len(c.events) > 0 {
		r.env.send(r.facts(c.events))
	}
	if c.bad {
		r.env.send(Malformed{})
	}
	if r.counted() || r.limited.Load() {
		select {
		case r.counts <- nil:
		default: // a reading is under way
		}
	}
}

// facts adds processes and the paths of cgroups to events.
func (r *Reader) facts(events []probe.Event) *Facts {
	f := r.free.Take()
	f.free = r.free
	for i := range events {
		e := &events[i]
		fact := Fact{Event: *e}
		if e.Kind == probe.Opened {
			fact.Processes = r.processes.Describe(e.PID, e.Name)
		}
		f.List = append(f.List, fact)
		r.cgroups = r.env.addPaths(r.cgroups, e.Socket.Cgroup, e.TaskCgroup)
	}
	f.Cgroups = r.cgroups
	return f
}

// maxCgroupPaths bounds the remembered cgroups: far more than have open ports at one time.
const maxCgroupPaths = 4096

// addPaths returns paths with those of some cgroups added.
func (e *Env) addPaths(paths *CgroupPaths, ids ...uint64) *CgroupPaths {
	for _, id := range ids {
		if _, known := paths.paths[id]; known || id == 0 {
			continue
		}
		path, err := e.Attributor.CgroupPath(id)
		e.reportTrouble(0, err)
		if path == "" {
			if _, gone := e.Attributor.KnownCgroupPath(id); !gone {
				continue // it may appear later
			}
		}
		next := make(map[uint64]string, len(paths.paths)+1)
		if len(paths.paths) < maxCgroupPaths {
			maps.Copy(next, paths.paths)
		}
		next[id] = path
		paths = NewCgroupPaths(next)
	}
	return paths
}
