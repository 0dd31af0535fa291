package server

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

func (s *Server) getContainers(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter := p.filter()
	if err := p.problem(); err != nil {
		return err
	}
	return s.answer(w, r, s.requests, func() (*whole, error) {
		view := s.Capture.View()
		all := inventory(view.Containers, view.Open)
		refs := make(map[string]*model.ContainerRef, len(view.Containers))
		for i := range view.Containers {
			refs[view.Containers[i].ID] = view.Containers[i].Ref()
		}
		matcher := filter.Matcher(view.Named)
		wanted := slices.DeleteFunc(all, func(c api.Container) bool {
			return !matcher.Container(refs[c.ID])
		})
		return asJSON(r, api.Containers{Containers: wanted})
	})
}

// place is a port of a container or of a namespace.
type place struct {
	owner    any // a container's id, or a port.Namespace
	protocol model.Protocol
	port     uint16
}

// inventory sets what containers declare beside what listens, sorted by
// project, name and id. Containers that share a network namespace share what
// listens there: a port that one publishes may be served by the other.
func inventory(states []model.ContainerState, open []model.Open) []api.Container {
	byContainer := map[string][]*model.Open{}
	for i := range open {
		if o := &open[i]; o.Container != nil {
			byContainer[o.Container.ID] = append(byContainer[o.Container.ID], o)
		}
	}
	// reachable are the places where something listens that others can reach.
	reachable, declared := map[place]bool{}, map[place]bool{}
	for i := range states {
		c := &states[i]
		for _, o := range byContainer[c.ID] {
			if o.Exposure != model.Loopback {
				reachable[placeOf(c, o.Protocol, o.Port)] = true
			}
		}
		for _, p := range c.Ports {
			declared[placeOf(c, p.Protocol, p.Port)] = true
		}
		for _, e := range c.Exposed {
			declared[placeOf(c, e.Protocol, e.Port)] = true
		}
	}
	containers := make([]api.Container, 0, len(states))
	for i := range states {
		c := &states[i]
		one := describe(c)
		one.Declared = declaredPorts(c, reachable)
		one.Undeclared = undeclaredPorts(c, byContainer[c.ID], declared)
		containers = append(containers, one)
	}
	slices.SortFunc(containers, func(a, b api.Container) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return containers
}

func placeOf(c *model.ContainerState, protocol model.Protocol, number uint16) place {
	if c.Namespace == (model.Namespace{}) {
		return place{c.ID, protocol, number}
	}
	return place{c.Namespace, protocol, number}
}

func describe(c *model.ContainerState) api.Container {
	ref := c.Ref()
	one := api.Container{
		ID: ref.ID, Name: ref.Name, Image: ref.Image, Project: ref.Project, Service: ref.Service,
		Monitored: c.Monitored, NetworkMode: c.NetworkMode, Paused: c.Paused,
		Addresses: append([]netip.Addr{}, c.Addresses...),
		Source:    c.Source, LastScanAt: c.LastScan, Stale: c.Stale,
	}
	if c.Namespace != (model.Namespace{}) {
		one.Namespace = c.Namespace.String()
	}
	return one
}

// declaredPorts joins what is exposed and what is published, by port.
func declaredPorts(c *model.ContainerState, reachable map[place]bool) []api.Declared {
	found := map[model.ExposedPort]*api.Declared{}
	at := func(protocol model.Protocol, number uint16) *api.Declared {
		key := model.ExposedPort{Protocol: protocol, Port: number}
		if found[key] == nil {
			found[key] = &api.Declared{
				Protocol: protocol, Port: number, Published: []string{},
				Listening: reachable[placeOf(c, protocol, number)],
			}
		}
		return found[key]
	}
	for _, e := range c.Exposed {
		at(e.Protocol, e.Port).Exposed = true
	}
	for _, p := range c.Ports {
		d := at(p.Protocol, p.Port)
		d.Published = append(d.Published, p.Host.String())
	}
	declared := make([]api.Declared, 0, len(found))
	for _, d := range found {
		slices.Sort(d.Published)
		declared = append(declared, *d)
	}
	slices.SortFunc(declared, func(a, b api.Declared) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return declared
}

// undeclaredPorts takes endpoints sorted by port, protocol and address.
func undeclaredPorts(c *model.ContainerState, open []*model.Open, declared map[place]bool) []api.Undeclared {
	undeclared := []api.Undeclared{}
	for _, o := range open {
		if declared[placeOf(c, o.Protocol, o.Port)] {
			continue
		}
		if last := len(undeclared) - 1; last >= 0 && undeclared[last].Port == o.Port && undeclared[last].Protocol == o.Protocol {
			undeclared[last].Addresses = append(undeclared[last].Addresses, o.Address)
			continue
		}
		undeclared = append(undeclared, api.Undeclared{Protocol: o.Protocol, Port: o.Port, Addresses: []netip.Addr{o.Address}})
	}
	return undeclared
}
