package expect

import (
	"slices"
	"strconv"
	"time"

	"portwatcher/internal/model"
)

// State is what is open, and which containers run, at one time.
type State struct {
	Time       time.Time
	Open       []model.Open
	Containers []*model.ContainerRef // of those that are monitored
}

// Compare returns how a state differs from a file (nil: labels alone), ordered as
// [CompareDrifts] does. A required port that is not open is missing at once. The time of the
// state decides which entries count, and is Since of each drift that does not have it.
func Compare(f *File, s State) []model.OpenDrift {
	names := model.NamesOf(s.Containers)
	covers := map[string]*cover{}
	found := map[model.DriftKey]*model.OpenDrift{}
	add := func(d model.OpenDrift) {
		known := found[d.Key()]
		if known == nil {
			found[d.Key()] = &d
			return
		}
		known.Endpoints += d.Endpoints
		if d.Since.Before(known.Since) {
			known.Since = d.Since
		}
	}
	for i := range s.Open {
		o := &s.Open[i]
		if o.Container == nil || o.Container.ID == "" {
			continue
		}
		c := covers[o.Container.ID]
		if c == nil {
			c = f.coverOf(o.Container, names)
			covers[o.Container.ID] = c
		}
		v := c.verdict(&o.Listener, s.Time)
		d := model.OpenDrift{Drift: v.Drift, Since: s.Time, Target: o.Container.Target(), Listener: o.Listener, Endpoints: 1, Expected: v.Expected}
		if v.Drift == o.Drift && !o.DriftSince.IsZero() {
			d.Since = o.DriftSince
		}
		switch v.Drift {
		case "":
		case model.DriftUncovered:
			d.Listener, d.Endpoints, d.Entry = model.Listener{Host: o.Host, Container: o.Container}, 0, EntriesFor(d.Target, s.Open)
			add(d)
		default:
			d.Entry = EntryFor(&d)
			add(d)
		}
	}
	for _, d := range f.missing(s, names) {
		add(d)
	}
	all := make([]model.OpenDrift, 0, len(found))
	for _, d := range found {
		all = append(all, *d)
	}
	slices.SortFunc(all, CompareDrifts)
	return all
}

// missing returns the required ports that are not open.
func (f *File) missing(s State, names model.Names) []model.OpenDrift {
	if f == nil {
		return nil
	}
	open := map[requiredKey]bool{}
	for i := range s.Open {
		if o := &s.Open[i]; o.Container != nil {
			open[requiredKey{o.Container.Target(), portOf{o.Protocol, o.Port}}] = true
		}
	}
	var all []model.OpenDrift
	for _, e := range f.Entries {
		if !e.Required || !e.Valid(s.Time) {
			continue
		}
		targets := map[string]*model.ContainerRef{}
		for _, c := range s.Containers {
			if e.Target.Matches(c, names) {
				targets[c.Target()] = c
			}
		}
		if len(targets) == 0 {
			targets[e.Target.String()] = refOf(e.Target.String())
		}
		for name, ref := range targets {
			e.Ports.Each(func(first, _ uint16, protocol model.Protocol) {
				if !open[requiredKey{name, portOf{protocol, first}}] {
					all = append(all, model.OpenDrift{
						Drift: model.DriftMissing, Since: s.Time, Target: name, Expected: "open",
						Listener: model.Listener{Container: ref, Protocol: protocol, Port: first},
					})
				}
			})
		}
	}
	return all
}

// Disagreement is a port for which the file and a container's label allow different things. The
// file wins.
type Disagreement struct {
	Container string
	// Label is the entry of the label, and Line that of the file's entry.
	Label string
	Line  int
	// File is what the file allows: "at most network".
	File string
}

// Disagreements returns where labels of containers do not agree with the file, in the order of
// the containers and of their labels. It returns an error text for each label that cannot be
// read.
func Disagreements(f *File, containers []*model.ContainerRef, at time.Time) (all []Disagreement, invalid []string) {
	names := model.NamesOf(containers)
	for _, c := range containers {
		text := c.Labels[Label]
		if text == "" {
			continue
		}
		byLabel, err := ParseLabel(text)
		if err != nil {
			invalid = append(invalid, "container "+c.Name+": label "+Label+": "+err.Error())
			continue
		}
		cover := f.coverOf(c, names)
		for i, word := range model.Words(text) {
			for _, e := range cover.byFile {
				if e.Valid(at) && byLabel[i].Exposure != e.Exposure && overlap(byLabel[i].Ports, e.Ports) {
					all = append(all, Disagreement{c.Name, word, e.Line, "at most " + string(e.Exposure)})
				}
			}
		}
	}
	return all, invalid
}

// overlap reports whether two sets have a port in common.
func overlap(a, b model.PortSet) (common bool) {
	a.Each(func(first, last uint16, protocol model.Protocol) {
		b.Each(func(low, high uint16, other model.Protocol) {
			common = common || first <= high && low <= last && (protocol == 0 || other == 0 || protocol == other)
		})
	})
	return common
}

// String describes the disagreement in one line.
func (d *Disagreement) String() string {
	return "container " + d.Container + ": the label's " + d.Label + " does not agree with line " + strconv.Itoa(d.Line) + " of the file, which allows " + d.File + " and wins"
}
