package wait

import (
	"context"
	"errors"
	"net/url"

	"portwatcher/internal/client"
	"portwatcher/internal/model"
)

type remote struct{ client *client.Client }

// Remote returns the running instance of a client. The caller closes the client.
func Remote(c *client.Client) Instance { return remote{c} }

// Await implements Instance; see [client.Client.Wait].
func (r remote) Await(ctx context.Context, t Target, o Options) ([]model.Open, error) {
	query := url.Values{"container": {t.Container}, "port": {t.port()}}
	for _, e := range o.Exposures {
		query.Add("exposure", string(e))
	}
	if o.Count != 0 && o.Count != 1 { // an instance of an earlier version does not have the parameter
		query.Set("count", o.Count.String())
	}
	ports, err := r.client.Wait(ctx, query, o.Timeout)
	if errors.Is(err, client.ErrTimeout) {
		return nil, ErrTimeout // if it does not answer, Containers returns why
	}
	if err != nil {
		return nil, err
	}
	return ports.Ports, nil
}

// Containers implements Instance.
func (r remote) Containers(ctx context.Context, t Target) ([]Container, error) {
	query := url.Values{"container": {t.Container}}
	known, err := r.client.Containers(ctx, query)
	if err != nil {
		return nil, err
	}
	ports, err := r.client.Ports(ctx, query)
	if err != nil {
		return nil, err
	}
	found := make([]Container, len(known.Containers))
	for i, c := range known.Containers {
		found[i] = Container{Name: c.Name, Monitored: c.Monitored, Open: openIn(c.ID, ports.Ports)}
	}
	return found, nil
}

// Running implements Instance.
func (r remote) Running(ctx context.Context) ([]string, error) {
	all, err := r.client.Containers(ctx, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all.Containers))
	for i, c := range all.Containers {
		names[i] = c.Name
	}
	return names, nil
}

func openIn(id string, all []model.Open) []model.Open {
	var mine []model.Open
	for _, o := range all {
		if o.Container != nil && o.Container.ID == id {
			mine = append(mine, o)
		}
	}
	return mine
}
