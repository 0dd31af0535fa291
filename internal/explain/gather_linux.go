package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

// maxNear bounds the names in a message.
const maxNear = 10

// Sources are what [Gather] asks.
type Sources struct {
	Engine   *engine.Engine
	ProcRoot string
	// Open returns what is open in the running containers for which relevant returns true, and
	// all running containers.
	Open func(ctx context.Context, relevant func(*model.Container) bool) ([]model.Open, []model.ContainerState, error)
	// Last returns the latest opening or closing of a port of a container; nil where none is
	// known.
	Last func(context.Context, *model.ContainerRef, model.Protocol, uint16) (*model.Event, error)
}

// AmbiguousError is the error for a question that several containers fit.
type AmbiguousError struct {
	Text  string
	Names []string
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q: allowed is one container, and %d fit: %s", e.Text, len(e.Names), strings.Join(e.Names, ", "))
}

// gathering collects facts.
type gathering struct {
	*Facts
	sources    Sources
	all        []engine.Listed
	containers []model.ContainerState
	host       *netns.Handle
}

// Gather finds the facts of a question. It connects by TCP, from the namespaces concerned,
// and sends nothing, except where [Question.ProbeUDP] asks for it. It takes some seconds where nobody answers. An error is an
// [*AmbiguousError], or means that the question cannot be answered.
func Gather(ctx context.Context, q Question, s Sources) (f *Facts, err error) {
	g := &gathering{Facts: &Facts{Question: q, Inside: q.Port}, sources: s}
	if g.all, err = s.Engine.All(ctx); err != nil {
		return nil, err
	}
	if g.host, err = netns.Open(s.ProcRoot, procfs.FirstProcess(s.ProcRoot)); err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, g.host.Close()) }()
	if err := g.find(ctx); err != nil {
		return nil, err
	}
	open, containers, err := s.Open(ctx, g.sharesNamespace)
	if err != nil {
		return nil, err
	}
	g.containers = containers
	if err := g.askHost(ctx); err != nil {
		return nil, err
	}
	if g.Subject == nil || g.Subject.Container == nil {
		return g.Facts, nil
	}
	g.keepOpen(open)
	if g.Last, err = s.Last(ctx, &g.Subject.ContainerRef, q.Protocol, g.Inside); err != nil {
		return nil, err
	}
	if !g.tries() || len(g.here()) == 0 {
		return g.Facts, nil
	}
	return g.Facts, g.connect(ctx)
}

// tries reports whether the port is tried.
func (g *gathering) tries() bool { return g.Protocol == model.TCP || g.ProbeUDP }

// find finds the container of the question, and the one that asks.
func (g *gathering) find(ctx context.Context) error {
	subject, err := g.byName(g.Question.Container)
	if g.Question.Container == "" {
		subject, err = g.byHostPort(ctx)
	}
	if err != nil {
		return err
	}
	if g.Subject, err = g.describe(ctx, subject); err != nil {
		return err
	}
	if err := g.adopt(ctx); err != nil {
		return err
	}
	if subject == nil {
		for _, one := range g.all[:min(len(g.all), maxNear)] {
			g.Near = append(g.Near, one.Name)
		}
	}
	if g.From == "" {
		return nil
	}
	other, err := g.byName(g.From)
	if err != nil {
		return err
	}
	if g.Other, err = g.describe(ctx, other); err != nil {
		return err
	}
	if g.Other == nil || g.Other.Container == nil {
		return fmt.Errorf("--from %q: no running container is named so", g.From)
	}
	return nil
}

func (g *gathering) describe(ctx context.Context, listed *engine.Listed) (*engine.Description, error) {
	if listed == nil {
		return nil, nil
	}
	d, err := g.sources.Engine.Describe(ctx, *listed)
	return &d, err
}

// adopt gives the subject the networks and ports of the container whose network namespace it
// shares.
func (g *gathering) adopt(ctx context.Context) error {
	if g.Subject == nil || g.Subject.Container == nil {
		return nil
	}
	id, shares := strings.CutPrefix(g.Subject.Container.NetworkMode, "container:")
	if !shares {
		return nil
	}
	owner := &engine.Description{Container: &model.Container{}}
	g.Owner = id[:min(len(id), 12)]
	if i := slices.IndexFunc(g.all, func(l engine.Listed) bool { return l.ID == id }); i >= 0 {
		var err error
		if owner, err = g.describe(ctx, &g.all[i]); err != nil {
			return err
		}
		g.Owner = owner.Name
	}
	shared := *g.Subject.Container
	shared.Addresses, shared.Ports = nil, nil
	if owner.Container != nil {
		shared.Addresses, shared.Ports = owner.Container.Addresses, owner.Container.Ports
	}
	g.Subject.Container, g.Subject.Networks, g.Subject.Requested = &shared, owner.Networks, owner.Requested
	return nil
}

// byName returns the container that text selects, the running one where others do not run;
// nil where there is none.
func (g *gathering) byName(text string) (*engine.Listed, error) {
	selection, err := model.ParseSelection(text)
	if err != nil || selection.Empty() {
		return nil, err
	}
	refs := make([]*model.ContainerRef, len(g.all))
	for i := range g.all {
		refs[i] = &g.all[i].ContainerRef
	}
	among := model.NamesOf(refs)
	var found, running []*engine.Listed
	for i := range g.all {
		one := &g.all[i]
		if !selection.Matches(&one.ContainerRef, among) {
			continue
		}
		found = append(found, one)
		if one.State == "running" {
			running = append(running, one)
		}
	}
	if len(running) > 0 {
		found = running
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	ambiguous := &AmbiguousError{Text: text}
	for _, one := range found {
		ambiguous.Names = append(ambiguous.Names, one.Name)
	}
	return nil, ambiguous
}

// sharesNamespace reports whether a container has the network namespace of the subject.
func (g *gathering) sharesNamespace(c *model.Container) bool {
	if g.Subject == nil || g.Subject.Container == nil {
		return false
	}
	owner := func(c *model.Container) string {
		if id, shares := strings.CutPrefix(c.NetworkMode, "container:"); shares {
			return id
		}
		return c.ID
	}
	return owner(c) == owner(g.Subject.Container)
}

// keepOpen keeps what is open in the namespace of the subject.
func (g *gathering) keepOpen(open []model.Open) {
	namespaces := map[string]model.Namespace{}
	for _, c := range g.containers {
		namespaces[c.ID] = c.Namespace
	}
	own := namespaces[g.Subject.ID]
	for _, o := range open {
		if o.Container != nil && namespaces[o.Container.ID] == own && (o.Container.ID == g.Subject.ID || !g.onHost()) {
			g.Open = append(g.Open, o)
		}
	}
}

// connect connects to the port by all ways.
func (g *gathering) connect(ctx context.Context) error {
	own, err := netns.Open(g.sources.ProcRoot, g.Subject.Container.PID)
	if err != nil {
		return err
	}
	defer own.Close()
	var inside, outside, published []netip.AddrPort
	for _, o := range g.here() {
		at := o.Address
		if at.IsUnspecified() && !o.IPv6Only { // a namespace may have no IPv6 address, not even ::1
			at = netip.IPv4Unspecified()
		}
		inside = append(inside, netip.AddrPortFrom(wildcard(at, nil), g.Inside))
	}
	for _, a := range g.Subject.Container.Addresses {
		outside = append(outside, netip.AddrPortFrom(a, g.Inside))
	}
	addresses, err := g.hostAddresses()
	if err != nil {
		return err
	}
	for _, p := range g.ports(g.Subject.Container.Ports) {
		published = append(published, netip.AddrPortFrom(wildcard(p.Host.Addr(), addresses), p.Host.Port()))
	}
	inOwn := place{"container " + g.Subject.Name, own}
	if g.onHost() {
		inOwn = g.hostPlace()
	}
	if g.Own, err = g.try(ctx, own, inside, inOwn); err != nil {
		return err
	}
	if failed(g.Own) != nil {
		g.Queued, err = procfs.Queued(g.sources.ProcRoot, g.Subject.Container.PID, g.Inside)
		return err
	}
	if g.Other != nil {
		from, err := netns.Open(g.sources.ProcRoot, g.Other.Container.PID)
		if err != nil {
			return err
		}
		defer from.Close()
		if networks := g.common(); len(networks) > 0 {
			outside = nil
			for _, n := range networks {
				for _, a := range n.Addresses {
					outside = append(outside, netip.AddrPortFrom(a, g.Inside))
				}
			}
		}
		g.FromOther, err = g.try(ctx, from, outside, inOwn, g.hostPlace(), place{"container " + g.Other.Name, from})
		return err
	}
	on := []place{inOwn, g.hostPlace()}
	if g.onHost() {
		on = on[1:]
	}
	if g.FromHost, err = g.try(ctx, g.host, outside, on...); err != nil {
		return err
	}
	g.Published, err = g.try(ctx, g.host, published, on...)
	return err
}
