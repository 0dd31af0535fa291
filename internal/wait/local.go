package wait

import (
	"context"
	"sync"
	"time"

	"portwatcher/internal/model"
)

// Capture provides the state of this process's capture;
// [portwatcher/internal/capture.Capture] implements it.
type Capture interface {
	Open() []model.Open
	Containers() []model.ContainerState
	// Ready returns nil while the state is complete.
	Ready() error
}

// Local is an [Instance] in this process.
type Local struct {
	mutex   sync.Mutex
	capture Capture
	changed chan struct{} // closed and replaced at each event
}

// NewLocal returns an instance without a capture; see [Local.Use].
func NewLocal() *Local { return &Local{changed: make(chan struct{})} }

// Use sets the capture that is read from now on. It is called before any other method.
func (l *Local) Use(c Capture) {
	l.mutex.Lock()
	l.capture = c
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

// state returns the capture, and a channel that is closed at the next event.
func (l *Local) state() (Capture, <-chan struct{}) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.capture, l.changed
}

// readInterval is the time between two reads without an event: exposure changes without one.
const readInterval = time.Second

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
	again := time.NewTicker(readInterval)
	defer again.Stop()
	for {
		capture, changed := l.state() // before reading, so that no event is missed
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
