package capture

import (
	"errors"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// newKeeping returns a rig with a journal.
func newKeeping(t *testing.T, change func(*Options)) (*rig, *consumer) {
	t.Helper()
	journal := newConsumer("journal")
	journal.keeps = true
	return newRig(t, func(o *Options) {
		o.Sinks = append(o.Sinks, journal.sink())
		if change != nil {
			change(o)
		}
	}), journal
}

// remembered returns what the journal keeps of a container with these sockets.
func remembered(t *testing.T, sockets ...model.Socket) []model.State {
	t.Helper()
	r, journal := newKeeping(t, nil)
	web := r.run("web", 1)
	r.scan(1, web, sockets...)
	r.synced()
	r.keepState()
	state, _ := journal.states()
	if len(state) != len(sockets) || slices.ContainsFunc(state, func(s model.State) bool { return s.Sockets == nil }) {
		t.Fatalf("the journal keeps %+v, want %d endpoints with their sockets", state, len(sockets))
	}
	return state
}

// again is the next start, after what remembered returned.
func again(t *testing.T, before []model.State, change func(*Resume)) (*rig, *consumer) {
	t.Helper()
	resume := Resume{FirstID: 1000, Again: true, SameBoot: true, Open: before}
	if change != nil {
		change(&resume)
	}
	return newKeeping(t, func(o *Options) { o.Resume = resume })
}

func TestResume(t *testing.T) {
	builder := &rig{cookie: 100}
	stays, closed, other := builder.socket(80), builder.socket(81), builder.socket(82)
	before := remembered(t, stays, closed, other)
	gone := before[0]
	gone.Container = &model.ContainerRef{ID: "gone", Name: "gone"}
	r, _ := again(t, append(before, gone), func(r *Resume) { r.Gap = "away" })
	r.cookie = 200
	web := r.run("web", 1)
	reopened, later := r.socket(82), r.socket(83)
	r.scan(1, web, stays, reopened, later)
	want := []string{
		"gap 0: away", "closed web 81/tcp loopback restart", "closed web 82/tcp loopback restart",
		"opened web 82/tcp loopback restart", "opened web 83/tcp loopback restart",
	}
	r.wants(want...)
	r.synced()
	want = append(want, "closed gone 80/tcp loopback restart")
	r.wants(want...)
	for i, e := range r.out.events() {
		if e.ID != uint64(1000+i) || e.OpenSeconds != nil || e.Type == model.Closed && e.OpenedAt.IsZero() {
			t.Errorf("%d: %+v, want the next id, and no time that is not known", i, e)
		}
	}
	r.scan(1, web, stays, reopened, later, r.socket(84))
	r.wants(append(want, "opened web 84/tcp loopback sock_diag")...)
	r.buildView()
	if open := r.views.latest.Load().Open; len(open) != 4 || open[0].OpenedAt.Sub(before[0].OpenedAt).Abs() > time.Millisecond {
		t.Errorf("open are %+v, want 4, the first since %v", open, before[0].OpenedAt)
	}
}

// The first scan of a container that starts after the engine's list is no restart.
func TestResumeIsOver(t *testing.T) {
	r, _ := again(t, nil, nil)
	r.synced()
	web := r.run("web", 1)
	r.scan(1, web, r.socket(80))
	r.wants("opened web 80/tcp loopback sock_diag")
}

// Sockets of another boot, or of a namespace that is not the container's any more, are
// not the same whatever their numbers.
func TestResumeWithNothingTheSame(t *testing.T) {
	for name, change := range map[string]func(*Resume){
		"booted":    func(r *Resume) { r.SameBoot = false },
		"restarted": func(r *Resume) { r.Open[0].Sockets.Namespace.Inode++ },
		"unknown":   func(r *Resume) { r.Open[0].Sockets = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := (&rig{}).socket(80)
			r, _ := again(t, remembered(t, s), change)
			web := r.run("web", 1)
			r.scan(1, web, s)
			r.synced()
			r.wants("closed web 80/tcp loopback restart", "opened web 80/tcp loopback restart")
		})
	}
}

// A container that is not monitored any more ends in the journal, and with a gap
// elsewhere; one that ends before its namespace was seen is closed.
func TestResumeWithoutAContainer(t *testing.T) {
	before := remembered(t, (&rig{}).socket(80))
	r, journal := again(t, before, nil)
	hidden := container("web")
	hidden.Labels = map[string]string{"watch": "no"}
	r.change(engine.Started, hidden, 1)
	r.synced()
	r.wants(left)
	if gap := r.out.events()[0]; gap.Container == nil || gap.Container.ID != hidden.ID {
		t.Errorf("the gap is of %+v, want it of the container", gap.Container)
	}
	if got := journal.described(); !slices.Equal(got, []string{left, "forget"}) {
		t.Errorf("the journal has %q, want that it forgets the container", got)
	}

	r, journal = again(t, before, nil)
	web := container("web")
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Started, Container: web}, Err: errors.New("not to be read")})
	r.keepState()
	r.syncedUnread(t)
	r.keepState()
	if state, _ := journal.states(); len(state) != 1 || state[0].Port != 80 {
		t.Errorf("the state is %+v, want what is known of the container that cannot be read", state)
	}
	r.change(engine.Stopped, web, 0)
	r.wants("closed web 80/tcp loopback engine")
}

// syncedUnread has the engine list all, and passes over that no namespace can be read.
func (r *rig) syncedUnread(t *testing.T) {
	t.Helper()
	if err := r.handle(&source.ContainerChange{Change: engine.Change{Kind: engine.Synced}}); err == nil {
		t.Error("no error, although no namespace can be read")
	}
	r.Capture.synced = true
}

func TestTune(t *testing.T) {
	only := func(port uint16) func(*model.Container, model.Protocol, uint16) bool {
		return func(_ *model.Container, _ model.Protocol, number uint16) bool { return number == port }
	}
	r, journal := newKeeping(t, func(o *Options) { o.Tuning.Reported = only(80) })
	web := r.run("web", 1)
	r.synced()
	eighty, more := r.socket(80), r.socket(81)
	r.scan(1, web, eighty, more)
	want := []string{"opened web 80/tcp loopback sock_diag"}
	r.wants(want...)

	only81 := r.tuning
	only81.Reported, only81.BurstLimit = only(81), 7
	r.tune(only81)
	if got := len(r.tracker.Open()); got != 0 {
		t.Errorf("%d ports are open that are not reported any more", got)
	}
	r.scan(1, web, eighty, more)
	want = append(want, "opened web 81/tcp loopback sock_diag")
	r.wants(want...)
	r.keepState()
	if state, _ := journal.states(); len(state) != 1 || state[0].Port != 81 {
		t.Errorf("the state is %+v, want 81 alone", state)
	}

	none := only81
	none.Enabled = func(*model.Container) bool { return false }
	r.tune(none)
	want = append(want, left)
	r.wants(want...)
	if got := journal.described(); got[len(got)-1] != "forget" || r.namespaces[model.Namespace{Inode: 1}].watcher != nil {
		t.Errorf("the journal has %q, want that it forgets the container; its namespace is watched", got)
	}

	all := Tuning{ScanInterval: time.Second, BurstScans: 3, UDPClients: true, Buffers: 8 << 20, Enabled: r.options.Tuning.Enabled}
	r.tune(all)
	r.open(1)
	r.scan(1, web, eighty, more)
	r.wants(append(want, want[0], want[1])...)
	if len(r.reaches) != 2 {
		t.Errorf("who can reach %d endpoints is known, want 2", len(r.reaches))
	}
	if s := r.env.Settings.Load(); s.ScanInterval != time.Second || s.BurstScans != 3 || !s.UDPClients || s.Buffer != 8<<20 {
		t.Errorf("settings %+v", s)
	}
}

// The newest of settings that come at once counts, and no call waits.
func TestTuneDoesNotWait(t *testing.T) {
	r := newRig(t, nil)
	for i := range 10 {
		tuning := r.tuning
		tuning.BurstLimit = i
		r.Tune(tuning)
	}
	if got := <-r.tunings; got.BurstLimit != 9 {
		t.Errorf("the settings are those of call %d, want the last", got.BurstLimit)
	}
}

// The sum of the receive buffers stays within the setting, and each namespace has its
// share of at least half of it.
func TestReceiveBuffers(t *testing.T) {
	const total = 64 << 20
	r := newRig(t, func(o *Options) { o.Tuning.Buffers = total })
	var containers []*model.Container
	names := func(i int) string { return string(rune('a'+i/26)) + string(rune('a'+i%26)) }
	check := func() {
		t.Helper()
		share := r.env.Settings.Load().Buffer
		if sum := share * len(containers); sum > total || share <= 0 || share > maxBuffer {
			t.Errorf("%d namespaces have %d bytes each, %d in all; the setting is %d", len(containers), share, sum, total)
		}
	}
	for i := range 200 {
		containers = append(containers, r.run(names(i), uint64(i+1)))
		check()
	}
	low := r.env.Settings.Load().Buffer
	if low < total/(2*len(containers)) {
		t.Errorf("200 namespaces have %d bytes each, want at least half of their share of %d", low, total)
	}
	for len(containers) > 1 {
		r.change(engine.Stopped, containers[0], 0)
		containers = containers[1:]
		check()
	}
	if high := r.env.Settings.Load().Buffer; high < total/2 {
		t.Errorf("one namespace has %d bytes, want at least half of %d", high, total)
	}
}
