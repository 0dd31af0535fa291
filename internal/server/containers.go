package server

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"

	"portwatcher/internal/metrics"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

func (s *Server) getContainers(w http.ResponseWriter, r *http.Request, p *parameters) error {
	filter := p.filter()
	if err := p.problem(); err != nil {
		return err
	}
	return s.answer(w, r, s.requests, func() (*whole, error) {
		view := s.capture.View()
		refs := make(map[string]*model.ContainerRef, len(view.Containers))
		for i := range view.Containers {
			refs[view.Containers[i].ID] = view.Containers[i].Ref()
		}
		matcher := filter.Matcher(view.Named)
		selected := slices.DeleteFunc(inventory(view.Containers, view.Open), func(c api.Container) bool {
			return !matcher.Container(refs[c.ID])
		})
		return asJSON(r, api.Containers{Containers: selected})
	})
}

// PublishedPorts returns the published ports of the monitored containers in a view, for
// [metrics.Sources].
func PublishedPorts(view *model.View) (published []metrics.Published) {
	for _, c := range inventory(view.Containers, view.Open) {
		for _, d := range c.Declared {
			if c.Monitored && len(d.Published) > 0 {
				published = append(published, metrics.Published{Container: c.Name, Protocol: d.Protocol, Port: d.Port, Listening: d.Listening})
			}
		}
	}
	return published
}

// place is a port of a container or of a namespace.
type place struct {
	owner    any // a container's id, or a model.Namespace
	protocol model.Protocol
	port     uint16
}

// inventory compares what containers declare with what listens, sorted by project, name and id.
// Containers that share a network namespace share what listens there: one may serve a port that
// another publishes.
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
			if o.Exposure != model.Loopback && o.Namespace == "" {
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
	containers := make([]api.Container, len(states))
	for i := range states {
		c := &states[i]
		containers[i] = describe(c)
		containers[i].Declared = declaredPorts(c, reachable)
		containers[i].Undeclared = undeclaredPorts(c, byContainer[c.ID], declared)
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
	container := api.Container{
		ID: ref.ID, Name: ref.Name, Image: ref.Image, Project: ref.Project, Service: ref.Service,
		Monitored: c.Monitored, NetworkMode: c.NetworkMode, Paused: c.Paused,
		Addresses: append([]netip.Addr{}, c.Addresses...),
		Source:    c.Source, LastScanAt: c.LastScan, Stale: c.Stale,
	}
	if c.Namespace != (model.Namespace{}) {
		container.Namespace = c.Namespace.String()
	}
	return container
}

// declaredPorts joins the exposed and the published ports.
func declaredPorts(c *model.ContainerState, reachable map[place]bool) []api.Declared {
	declared := []api.Declared{}
	at := func(protocol model.Protocol, number uint16) *api.Declared {
		i := slices.IndexFunc(declared, func(d api.Declared) bool { return d.Protocol == protocol && d.Port == number })
		if i < 0 {
			i = len(declared)
			declared = append(declared, api.Declared{
				Protocol: protocol, Port: number, Published: []string{},
				Listening: reachable[placeOf(c, protocol, number)],
			})
		}
		return &declared[i]
	}
	for _, e := range c.Exposed {
		at(e.Protocol, e.Port).Exposed = true
	}
	for _, p := range c.Ports {
		d := at(p.Protocol, p.Port)
		d.Published = append(d.Published, p.Host.String())
	}
	for i := range declared {
		slices.Sort(declared[i].Published)
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
