package wait

import (
	"context"
	"sync"
	"time"

	"portwatcher/internal/model"
)

// Capture knows what is open, as far as it has looked;
// [portwatcher/internal/capture.Capture] does.
type Capture interface {
	Open() []model.Open
	Containers() []model.ContainerState
	// Ready returns nil while what it knows is up to date.
	Ready() error
}

// Local is an [Instance] of this process. It looks again at each event.
type Local struct {
	mutex   sync.Mutex
	capture Capture
	changed chan struct{} // closed and replaced at each event
}

// NewLocal returns an instance whose capture knows nothing yet.
func NewLocal() *Local { return &Local{changed: make(chan struct{})} }

// Use says which capture is asked from now on.
func (l *Local) Use(c Capture) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.capture = c
	l.wake()
}

// Event is called for each event. It does not block.
func (l *Local) Event() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.wake()
}

// wake has everybody look again. The caller holds the lock.
func (l *Local) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns the capture, and what tells that it is worth to look again.
func (l *Local) state() (Capture, <-chan struct{}) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.capture, l.changed
}

// lookInterval is the time between two looks without an event: exposure changes
// without one.
const lookInterval = time.Second

// names returns the names of the containers that run now.
func names(capture Capture) model.Names {
	view := model.View{Containers: capture.Containers()}
	return view.Named
}

// Await implements Instance.
func (l *Local) Await(ctx context.Context, t Target, exposures []model.Exposure, timeout time.Duration) ([]model.Open, error) {
	filter := t.filter(exposures)
	late := time.NewTimer(timeout)
	defer late.Stop()
	again := time.NewTicker(lookInterval)
	defer again.Stop()
	for {
		capture, changed := l.state() // before the look, so that no event is missed
		var open []model.Open
		matcher := filter.Matcher(names(capture))
		for _, o := range capture.Open() {
			if matcher.Listener(&o.Listener) {
				open = append(open, o)
			}
		}
		if len(open) > 0 {
			return open, nil
		}
		if timeout <= 0 {
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
	capture, _ := l.state()
	if err := capture.Ready(); err != nil {
		return nil, err
	}
	matcher, open := t.filter(nil).Matcher(names(capture)), capture.Open()
	var found []Container
	for _, c := range capture.Containers() {
		if matcher.Container(c.Ref()) {
			found = append(found, Container{Name: c.Name, Monitored: c.Monitored, Open: openIn(c.ID, open)})
		}
	}
	return found, nil
}

// Running implements Instance.
func (l *Local) Running(context.Context) ([]string, error) {
	capture, _ := l.state()
	var names []string
	for _, c := range capture.Containers() {
		names = append(names, c.Name)
	}
	return names, nil
}
