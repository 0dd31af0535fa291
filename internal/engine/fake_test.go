package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/go-connections/nat"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/model"
)

var kindNames = [...]string{
	Started: "started", Stopped: "stopped", Updated: "updated", Synced: "synced", Lost: "lost", Passed: "passed", Failed: "failed", Missed: "missed",
}

func (k Kind) String() string { return kindNames[k] }

// fakeEngine is an engine in memory: containers, and the streams of those who
// subscribed. Its methods may be called concurrently.
type fakeEngine struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
	streams    map[*fakeStream]struct{}
	absent     error            // connections fail with it
	listErr    error            // lists fail with it
	eventsErr  error            // subscriptions fail with it
	inspectErr map[string]error // inspections fail with it
	hangs      map[string]bool  // inspections, and with "" lists, that get no answer
	memory     []events.Message // the latest events, as the engine keeps them
	onConnect  func()           // called before each connection, unlocked
	onList     func()           // called after each list, unlocked
	lateAnswer bool             // Events returns with the first event only
	lists      int
	// inspections counts; alive is for the engine's options.
	inspections int
	alive       func(*model.Container) bool
}

type fakeContainer struct {
	id, name string
	pid      int
	paused   bool
	started  time.Time
	networks int
}

// fakeStream is one subscription; its queue stands for the connection.
type fakeStream struct {
	queue chan events.Message
	end   chan error
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		containers: make(map[string]*fakeContainer),
		streams:    make(map[*fakeStream]struct{}),
		inspectErr: make(map[string]error),
		hangs:      make(map[string]bool),
	}
}

// engine returns an Engine that talks to the fake, and the lines it logs.
func (f *fakeEngine) engine() (*Engine, *test.Hook) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	hook := test.NewLocal(logger)
	return &Engine{host: "unix:///fake.sock", log: logger, alive: f.alive, connect: func(context.Context) (api, error) {
		f.mu.Lock()
		onConnect := f.onConnect
		f.mu.Unlock()
		if onConnect != nil {
			onConnect()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.absent != nil {
			return nil, newConnectError("unix:///fake.sock", f.absent)
		}
		return f, nil
	}}, hook
}

// change alters the fake under its lock.
func (f *fakeEngine) change(alter func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	alter()
}

// run starts a container, or restarts it with another pid, without an event.
func (f *fakeEngine) run(id string, pid int) {
	f.change(func() {
		f.containers[id] = &fakeContainer{id: id, name: "name-" + id, pid: pid, started: time.Now()}
	})
}

// inspected returns the number of inspections so far.
func (f *fakeEngine) inspected() (count int) {
	f.change(func() { count = f.inspections })
	return count
}

// kill ends a container without an event.
func (f *fakeEngine) kill(id string) { f.change(func() { delete(f.containers, id) }) }

// emit sends an event of a container, dated now, to all streams.
func (f *fakeEngine) emit(action events.Action, id string) {
	f.emitAt(action, id, time.Now())
}

func (f *fakeEngine) emitAt(action events.Action, id string, at time.Time) {
	message := events.Message{Type: events.ContainerEventType, Action: action, TimeNano: at.UnixNano()}
	message.Actor.ID = id
	f.emitMessage(message)
}

// emitNetwork sends an event of a network about a container.
func (f *fakeEngine) emitNetwork(action events.Action, id string) {
	message := events.Message{Type: events.NetworkEventType, Action: action, TimeNano: time.Now().UnixNano()}
	message.Actor = events.Actor{ID: "network", Attributes: map[string]string{"container": id}}
	f.emitMessage(message)
}

func (f *fakeEngine) emitMessage(message events.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memory = append(f.memory, message)
	f.memory = f.memory[max(0, len(f.memory)-engineMemory):]
	for stream := range f.streams {
		stream.queue <- message
	}
}

// hangUp ends all streams, after the events sent before.
func (f *fakeEngine) hangUp(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for stream := range f.streams {
		stream.end <- err
		delete(f.streams, stream)
	}
}

func (f *fakeEngine) ClientVersion() string { return "1.41" }

func (f *fakeEngine) Info(context.Context) (system.Info, error) {
	return system.Info{Name: "node1", ServerVersion: "20.10.24"}, nil
}

func (f *fakeEngine) ContainerList(ctx context.Context, _ container.ListOptions) ([]container.Summary, error) {
	f.mu.Lock()
	f.lists++
	err, onList := f.listErr, f.onList
	var list []container.Summary
	for id := range f.containers {
		state := container.StateRunning
		if f.containers[id].paused {
			state = container.StatePaused
		}
		summary := container.Summary{ID: id, Names: []string{"/other/alias", "/" + f.containers[id].name}, State: state}
		for i := range f.containers[id].networks {
			summary.Ports = append(summary.Ports, container.Port{IP: "0.0.0.0", PrivatePort: uint16(80 + i), PublicPort: 8080, Type: "tcp"})
		}
		list = append(list, summary)
	}
	hangs := f.hangs[""]
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if onList != nil {
		onList()
	}
	if err != nil {
		return nil, err
	}
	return list, ctx.Err()
}

func (f *fakeEngine) NetworkInspect(_ context.Context, id string, _ network.InspectOptions) (network.Inspect, error) {
	return network.Inspect{Name: id, Driver: "bridge", Internal: id == "inner"}, nil
}

func (f *fakeEngine) ContainerInspect(ctx context.Context, id string) (container.InspectResponse, error) {
	f.mu.Lock()
	hangs := f.hangs[id]
	f.inspections++
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return container.InspectResponse{}, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.inspectErr[id]; err != nil {
		return container.InspectResponse{}, err
	}
	c, found := f.containers[id]
	if !found {
		return container.InspectResponse{}, fmt.Errorf("no such container: %s: %w", id, cerrdefs.ErrNotFound)
	}
	settings := &container.NetworkSettings{}
	settings.Ports = nat.PortMap{}
	for i := range c.networks {
		settings.Ports[nat.Port(fmt.Sprintf("%d/tcp", 80+i))] = []nat.PortBinding{{HostIP: "0.0.0.0", HostPort: "8080"}}
	}
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID: id, Name: "/" + c.name,
			State: &container.State{Running: true, Paused: c.paused, Pid: c.pid, StartedAt: c.started.Format(time.RFC3339Nano)},
		},
		NetworkSettings: settings,
	}, ctx.Err()
}

// Events behaves as the client library: unbuffered messages, errs closed last.
func (f *fakeEngine) Events(ctx context.Context, options events.ListOptions) (<-chan events.Message, <-chan error) {
	stream := &fakeStream{queue: make(chan events.Message, 10*queueLength), end: make(chan error, 1)}
	f.mu.Lock()
	for _, message := range f.memory {
		if timestamp(eventTime(message)) >= options.Since {
			stream.queue <- message
		}
	}
	switch {
	case f.eventsErr != nil:
		stream.queue = nil
		stream.end <- f.eventsErr
	case options.Until != "":
		stream.end <- io.EOF
	default:
		f.streams[stream] = struct{}{}
	}
	late := f.lateAnswer && options.Until == ""
	f.mu.Unlock()
	messages, errs := make(chan events.Message), make(chan error, 1)
	answered := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answered) })
	go func() {
		defer close(errs)
		err := stream.serve(ctx, messages, answer)
		f.change(func() { delete(f.streams, stream) })
		errs <- err
	}()
	if late {
		select {
		case <-answered:
		case <-ctx.Done():
		}
	}
	return messages, errs
}

func (s *fakeStream) serve(ctx context.Context, messages chan<- events.Message, onFirst func()) error {
	for {
		select {
		case message := <-s.queue:
			onFirst()
			select {
			case messages <- message:
			case <-ctx.Done():
				return ctx.Err()
			}
		case err := <-s.end:
			if len(s.queue) == 0 {
				return err
			}
			s.end <- err // after what was sent before
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// following is a Follow under test, in a synctest bubble.
type following struct {
	t       *testing.T
	changes chan Change
	log     *test.Hook
	done    chan error
	stop    context.CancelFunc
}

// follow starts a Follow that the end of the test stops.
func follow(t *testing.T, f *fakeEngine) *following {
	t.Helper()
	e, log := f.engine()
	ctx, cancel := context.WithCancel(t.Context())
	w := &following{t: t, changes: make(chan Change), log: log, done: make(chan error, 1), stop: cancel}
	go func() { w.done <- e.Follow(ctx, w.changes) }()
	t.Cleanup(func() {
		cancel()
		if err := <-w.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow returned %v, want context.Canceled", err)
		}
	})
	return w
}

// running follows an engine that runs these containers, the first with process
// 10, the next with 20 and so on, until they are known.
func running(t *testing.T, ids ...string) (*fakeEngine, *following) {
	t.Helper()
	f := newFakeEngine()
	var wanted []string
	for i, id := range ids {
		f.run(id, 10*(i+1))
		wanted = append(wanted, "started "+id)
	}
	w := follow(t, f)
	w.want(append(wanted, "synced")...)
	return f, w
}

// next waits for a change, for up to two minutes of the bubble's time.
func (w *following) next() Change {
	w.t.Helper()
	select {
	case change := <-w.changes:
		return change
	case <-time.After(2 * time.Minute):
		w.t.Fatal("no change in two minutes")
		return Change{}
	}
}

// want waits for changes of the kinds and container ids given, as in
// "started a", "synced". Those of different containers may come in any order.
func (w *following) want(wanted ...string) []Change {
	w.t.Helper()
	got, left := make([]Change, len(wanted)), slices.Clone(wanted)
	for range wanted {
		change := w.next()
		text := describe(change)
		at := slices.IndexFunc(left, func(want string) bool {
			_, id, _ := strings.Cut(want, " ")
			return want != "" && (id == "" || change.Container == nil || id == change.Container.ID)
		})
		if at < 0 || left[at] != text {
			w.t.Fatalf("got %q, want one of %q", text, left)
		}
		got[at], left[at] = change, ""
	}
	return got
}

// wantAll is want in any order.
func (w *following) wantAll(wanted ...string) {
	w.t.Helper()
	var got []string
	for range wanted {
		got = append(got, describe(w.next()))
	}
	slices.Sort(got)
	if slices.Sort(wanted); !slices.Equal(got, wanted) {
		w.t.Fatalf("got %q, want %q", got, wanted)
	}
}

// passOver takes changes of a kind that are of no interest, and proves that no
// other is on its way.
func (w *following) passOver(kind Kind) {
	w.t.Helper()
	for {
		synctest.Wait()
		select {
		case change := <-w.changes:
			if change.Kind != kind {
				w.t.Fatalf("unexpected change: %s", describe(change))
			}
		default:
			return
		}
	}
}

// nextOf waits for a change of a kind, and passes over Synced.
func (w *following) nextOf(kind Kind) Change {
	w.t.Helper()
	for {
		change := w.next()
		if change.Kind == kind {
			return change
		}
		if change.Kind != Synced {
			w.t.Fatalf("got %q, want %s", describe(change), kind)
		}
	}
}

// while takes changes of a kind for a time, and fails on others.
func (w *following) while(kind Kind, duration time.Duration) {
	w.t.Helper()
	end := time.After(duration)
	for {
		select {
		case change := <-w.changes:
			if change.Kind != kind {
				w.t.Fatalf("unexpected change: %s", describe(change))
			}
		case <-end:
			return
		}
	}
}

// quiet proves that nothing is on its way.
func (w *following) quiet() {
	w.t.Helper()
	synctest.Wait()
	select {
	case change := <-w.changes:
		w.t.Fatalf("unexpected change: %s", describe(change))
	default:
	}
}

func describe(change Change) string {
	text := change.Kind.String()
	if change.Container != nil {
		text += " " + change.Container.ID
	}
	return text
}

// lines returns what was logged at a level, joined.
func (w *following) lines(level logrus.Level) []string {
	var lines []string
	for _, entry := range w.log.AllEntries() {
		if entry.Level == level {
			lines = append(lines, strings.TrimSpace(entry.Message))
		}
	}
	return lines
}

// replay applies changes as a consumer does, and fails on a Started for what
// runs, or a Stopped or Updated for what does not.
func replay(t *testing.T, state map[string]*model.Container, change Change) {
	t.Helper()
	switch change.Kind {
	case Failed:
		if old := state[change.Container.ID]; old != nil {
			t.Fatalf("%s failed after it had started or failed", old.ID)
		}
		state[change.Container.ID] = change.Container
	case Started:
		if old := state[change.Container.ID]; old != nil && old.PID != 0 {
			t.Fatalf("second start of %s: pid %d after %d", old.ID, change.Container.PID, old.PID)
		}
		state[change.Container.ID] = change.Container
	case Stopped, Updated:
		old := state[change.Container.ID]
		if old == nil || old.PID != change.Container.PID {
			t.Fatalf("%s of a container that does not run, or has another pid: %+v", change.Kind, old)
		}
		state[change.Container.ID] = change.Container
		if change.Kind == Stopped {
			delete(state, change.Container.ID)
		}
	}
}
