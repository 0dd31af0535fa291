package wait

import (
	"context"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/model"
)

// Local is an [Instance] in this process.
type Local struct {
	mutex   sync.Mutex
	view    func() *model.View
	ready   func() error
	changed chan struct{} // closed and replaced at each event
}

// NewLocal returns an instance without a source; see [Local.Use].
func NewLocal() *Local { return &Local{changed: make(chan struct{})} }

// Use sets the source that is read from now on: view returns the present state, and ready nil
// while the state is complete. It is called before any other method.
func (l *Local) Use(view func() *model.View, ready func() error) {
	l.mutex.Lock()
	l.view, l.ready = view, ready
	l.mutex.Unlock()
	l.Event()
}

// Event makes the waits read the capture again. It does not block.
func (l *Local) Event() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns the present view, and a channel that is closed at the next event.
func (l *Local) state() (*model.View, <-chan struct{}) {
	l.mutex.Lock()
	view, changed := l.view, l.changed
	l.mutex.Unlock()
	return view(), changed // the channel is older than the view: no event is missed
}

// readInterval is the time between two reads without an event: containers end without one, and
// while many ports open, their events are late.
const readInterval = time.Second

// Await implements Instance.
func (l *Local) Await(ctx context.Context, t Target, o Options) ([]model.Open, error) {
	filter := t.filter(o.Exposures)
	late := time.NewTimer(o.Timeout)
	defer late.Stop()
	again := time.NewTicker(readInterval)
	defer again.Stop()
	for {
		view, changed := l.state()
		matcher := filter.Matcher(view.Named)
		// Which containers are all is known as soon as all are watched.
		if o.Count.Reached(view, matcher) && (o.Count != model.EveryContainer || l.ready() == nil) {
			return slices.DeleteFunc(slices.Clone(view.Open), func(o model.Open) bool { return !matcher.Open(&o) }), nil
		}
		if o.Timeout <= 0 {
			return nil, ErrTimeout
		}
		select {
		case <-changed:
		case <-again.C:
		case <-late.C:
			return nil, ErrTimeout
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Containers implements Instance.
func (l *Local) Containers(_ context.Context, t Target) ([]Container, error) {
	if err := l.ready(); err != nil {
		return nil, err
	}
	view, _ := l.state()
	matcher := t.filter(nil).Matcher(view.Named)
	var found []Container
	for _, c := range view.Containers {
		if matcher.Container(c.Ref()) {
			found = append(found, Container{Name: c.Name, Monitored: c.Monitored, Open: openIn(c.ID, view.Open)})
		}
	}
	return found, nil
}

// Running implements Instance.
func (l *Local) Running(context.Context) ([]string, error) {
	view, _ := l.state()
	var names []string
	for _, c := range view.Containers {
		names = append(names, c.Name)
	}
	return names, nil
}
