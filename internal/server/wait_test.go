package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
)

// expensive is a filter with as many patterns as are allowed, of which none matches.
func expensive(t *testing.T, number int) *model.Filter {
	t.Helper()
	var words []string
	for i := range maxPatterns {
		words = append(words, fmt.Sprintf("*n*o*n*e-%d-%d*", number, i))
	}
	selection, err := model.ParseSelection(strings.Join(words, ","))
	if err != nil {
		t.Fatal(err)
	}
	return &model.Filter{Containers: selection}
}

// TestAnEventCostsTheSameForManyThatWait has 200 requests that wait for 32 patterns
// each. What each event costs its goroutine must not grow with them.
func TestAnEventCostsTheSameForManyThatWait(t *testing.T) {
	s := start(t, nil)
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(3000) })
	for i := range 200 {
		defer s.waiters.leave(s.waiters.join(expensive(t, i), 1))
	}
	const events = 10_000
	opened := event(model.Opened, openPort(web, model.TCP, "0.0.0.0", 80, model.Network))
	began := time.Now()
	for range events {
		s.Event(opened)
	}
	s.Missed(1)
	// Matched one by one they took 10 s and more for 500 events.
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d events took %s", events, took)
	}
}

// TestMatchingIsBounded has many views one after the other, each with ports that
// opened.
func TestMatchingIsBounded(t *testing.T) {
	s := start(t, nil)
	for i := range 200 {
		defer s.waiters.leave(s.waiters.join(expensive(t, i), 1))
	}
	var compared sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	views := 0
	w := newWaiters(func() *model.View {
		views++
		return &model.View{Version: uint64(views), Open: manyPorts(100 + views%2)}
	}, func() error { return nil })
	defer w.leave(w.join(expensive(t, 0), 1))
	compared.Go(func() { w.run(ctx) })
	for ctx.Err() == nil {
		w.wake()
		time.Sleep(100 * time.Microsecond) // the pace of the events, not a wait
	}
	compared.Wait()
	if most := int(time.Second/matchPause) + 10; views > most {
		t.Errorf("compared %d times in a second, want at most %d", views, most)
	}
}

// TestEachRequestWaitsForItsOwn has many requests for two ports.
func TestEachRequestWaitsForItsOwn(t *testing.T) {
	s := start(t, nil)
	type result struct {
		ports api.Ports
		path  string
	}
	answers := make(chan result)
	const requests = 30
	paths := []string{"/api/v1/ports?container=late&port=81/tcp&wait=5m", "/api/v1/ports?container=late&port=82&exposure=network&wait=5m"}
	for i := range requests {
		path := paths[i%len(paths)]
		go func() { answers <- result{decode[api.Ports](t, s, path), path} }()
	}
	kernel.Eventually(t, "all wait", func() bool { return s.waiters.count() == requests })
	late := &model.ContainerRef{ID: strings.Repeat("c", 64), Name: "late"}
	for _, o := range []model.Open{
		openPort(late, model.TCP, "0.0.0.0", 81, model.Network), openPort(late, model.TCP, "0.0.0.0", 82, model.Loopback),
	} {
		s.capture.set(func(c *fakeCapture) { c.open = append(slices.Clone(c.open), o) })
		s.Event(event(model.Opened, o))
	}
	for range requests / len(paths) {
		if got := <-answers; got.path != paths[0] || len(got.ports.Ports) != 1 || got.ports.Ports[0].Port != 81 {
			t.Errorf("%+v", got)
		}
	}
	// The other can be reached from now on, and the event has another type.
	s.capture.set(func(c *fakeCapture) {
		c.open = slices.Clone(c.open)
		c.open[len(c.open)-1].Exposure = model.Network
	})
	s.Event(event(model.Changed, s.capture.open[0]))
	for range requests / len(paths) {
		if got := <-answers; got.path != paths[1] || len(got.ports.Ports) != 1 || got.ports.Ports[0].Port != 82 {
			t.Errorf("%+v", got)
		}
	}
	kernel.Eventually(t, "nobody waits", func() bool { return s.waiters.count() == 0 && len(s.waits) == 0 })
}

// TestMissedEventsWake opens a port without an event.
func TestMissedEventsWake(t *testing.T) {
	s := start(t, nil)
	answers := make(chan api.Ports)
	go func() { answers <- decode[api.Ports](t, s, "/api/v1/ports?port=81&wait=5m") }()
	kernel.Eventually(t, "the request waits", func() bool { return s.waiters.count() == 1 })
	opened := openPort(web, model.TCP, "0.0.0.0", 81, model.Network)
	s.Missed(5)
	// The view may come after the report of missed events.
	s.capture.set(func(c *fakeCapture) { c.open = append(slices.Clone(c.open), opened) })
	s.Missed(5)
	if got := <-answers; len(got.Ports) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestTheAnswerHasWhatWasFound closes the port before the answer is made.
func TestTheAnswerHasWhatWasFound(t *testing.T) {
	s := start(t, nil)
	filter := &model.Filter{Ports: model.OnePort(0, 81)}
	views := make(chan *model.View)
	go func() {
		view, err := s.await(t.Context(), filter, 1, time.Hour)
		if err != nil {
			t.Error(err)
		}
		views <- view
	}()
	kernel.Eventually(t, "it waits", func() bool { return s.waiters.count() == 1 })
	o := openPort(web, model.TCP, "0.0.0.0", 81, model.Network)
	s.capture.set(func(c *fakeCapture) { c.open = append(slices.Clone(c.open), o) })
	s.Event(event(model.Opened, o))
	kernel.Eventually(t, "it is found", func() bool { return s.waiters.count() == 0 })
	s.capture.set(func(c *fakeCapture) { c.open = nil })
	if view := <-views; !slices.ContainsFunc(view.Open, func(o model.Open) bool { return filter.Matcher(view.Named).Open(&o) }) {
		t.Errorf("%d ports are open", len(view.Open))
	}
}

func TestPatternsAreBounded(t *testing.T) {
	s := start(t, nil)
	patterns := strings.Repeat("none*,", maxPatterns)
	for _, path := range []string{"ports?wait=0&container=", "ports?container=", "containers?name=", "containers?container=a&name=", "events?container="} {
		p := s.problem(t, http.StatusBadRequest, "/api/v1/"+path+patterns+"web")
		if !strings.Contains(p.Detail, "at most ") || !strings.Contains(p.Detail, "values") || p.Value != "web" && !strings.Contains(path, "=a&") {
			t.Errorf("%s: %+v", path, p)
		}
	}
	decode[api.Ports](t, s, "/api/v1/ports?container="+patterns)
}

// TestOpened compares with a search through all.
func TestOpened(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := manyPorts(60)
	pick := func() (some []model.Open) {
		for _, o := range all {
			if random.IntN(2) == 0 {
				continue
			}
			switch random.IntN(8) {
			case 0:
				o.SetReach(model.Published, []string{"0.0.0.0:8080"})
			case 2:
				o.SetReach(model.Published, []string{"127.0.0.1:8080"})
			case 1:
				renamed := *o.Container
				renamed.Name += "-renamed"
				o.Container = &renamed
			}
			some = append(some, o)
		}
		random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		return some
	}
	for range 1000 {
		before, now := pick(), pick()
		var want []*model.Open
		for i := range now {
			if !slices.ContainsFunc(before, func(o model.Open) bool {
				return o.Endpoint() == now[i].Endpoint() && o.Exposure == now[i].Exposure && *o.Outside == *now[i].Outside && o.Container.Name == now[i].Container.Name
			}) {
				want = append(want, &now[i])
			}
		}
		if got := newlyOpen(before, now); !slices.Equal(got, want) {
			t.Fatalf("%d opened, want %d", len(got), len(want))
		}
	}
}

// A count waits for as many containers, and all for each that runs and is selected.
func TestWaitForSeveralContainers(t *testing.T) {
	s := start(t, nil)
	replica := func(n int) *model.Container {
		return &model.Container{ID: strings.Repeat(strconv.Itoa(n), 64), Name: "shop-web-" + strconv.Itoa(n),
			Labels: map[string]string{model.LabelProject: "shop", model.LabelService: "web"}}
	}
	var containers []model.ContainerState
	for n := range 3 {
		containers = append(containers, model.ContainerState{Container: replica(n + 1), Monitored: true})
	}
	s.capture.set(func(c *fakeCapture) { c.containers, c.open = containers, nil })
	open := func(n int) {
		o := openPort(replica(n).Ref(), model.TCP, "0.0.0.0", 80, model.Network)
		s.capture.set(func(c *fakeCapture) { c.open = append(slices.Clone(c.open), o) })
		s.Event(event(model.Opened, o))
	}
	answers := make(map[string]chan int)
	for _, count := range []string{"1", "2", "all"} {
		answer := make(chan int, 1)
		answers[count] = answer
		go func() {
			answer <- len(decode[api.Ports](t, s, "/api/v1/ports?container=shop/web&port=80&wait=5m&count="+count).Ports)
		}()
	}
	waits := func(count int) func() bool { return func() bool { return s.waiters.count() == count } }
	kernel.Eventually(t, "all wait", waits(3))
	open(1)
	if got := <-answers["1"]; got != 1 {
		t.Errorf("one container: %d ports", got)
	}
	open(2)
	if got := <-answers["2"]; got != 2 {
		t.Errorf("two containers: %d ports", got)
	}
	s.problem(t, http.StatusRequestTimeout, "/api/v1/ports?container=shop/web&port=80&wait=0s&count=3")
	s.problem(t, http.StatusRequestTimeout, "/api/v1/ports?container=shop/web&port=80&wait=0s&count=all")
	kernel.Eventually(t, "one waits for all", waits(1))
	// The third ends without ever having opened its port, and without an event.
	s.capture.set(func(c *fakeCapture) { c.containers = containers[:2] })
	if got := <-answers["all"]; got != 2 {
		t.Errorf("all containers: %d ports", got)
	}
	for query, parameter := range map[string]string{"count=2": "count", "count=0&wait=1s": "count", "count=many&wait=1s": "count"} {
		if p := s.problem(t, http.StatusBadRequest, "/api/v1/ports?"+query); p.Parameter != parameter {
			t.Errorf("%s: %+v", query, p)
		}
	}
}
