package capture

import (
	"context"
	"sync"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
)

// fakeEngine reports what the test wants.
type fakeEngine struct {
	changes chan engine.Change
	mutex   sync.Mutex
	lists   [][]*model.Container // the answers of List; the last is repeated
	failure error
	hangs   bool // Info
}

func (e *fakeEngine) Info(ctx context.Context) (engine.Info, error) {
	if e.hangs {
		<-ctx.Done()
		return engine.Info{}, ctx.Err()
	}
	return engine.Info{Name: "node1"}, nil
}

func (e *fakeEngine) List(context.Context) (list []*model.Container, _ error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if len(e.lists) > 0 {
		list = e.lists[0]
		e.lists = e.lists[min(1, len(e.lists)-1):]
	}
	return list, nil
}

func (e *fakeEngine) Follow(ctx context.Context, changes chan<- engine.Change) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case change, ok := <-e.changes:
			if !ok {
				return e.failure
			}
			select {
			case changes <- change:
			case <-ctx.Done():
			}
		}
	}
}
