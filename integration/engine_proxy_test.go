package integration

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// soon bounds what must not wait for a request that hangs.
const soon = 4 * time.Second

// watchProxy starts a proxy to the engine and a watch that uses it.
func watchProxy(t *testing.T, prepare func(p *harness.Proxy), arguments ...string) (*harness.Proxy, *harness.Watch) {
	t.Helper()
	proxy := harness.StartProxy(t, "tcp://127.0.0.1:0")
	prepare(proxy)
	return proxy, harness.StartWatch(t, harness.WatchSpec{DockerHost: proxy.Host, Arguments: append(arguments, "--source", ebpf)})
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func refuse(status int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"message":"not allowed"}`, status) }
}

// A container that the engine does not describe is the trouble of that container alone.
func TestProxyFailedInspect(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	for name, fail := range map[string]func(http.ResponseWriter, *http.Request){
		"hangs": hang, "403": refuse(http.StatusForbidden), "500": refuse(http.StatusInternalServerError),
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := start(t, "bad", 1, nil, "--tcp", "0.0.0.0:80"), start(t, "good", 1, nil, "--tcp", "0.0.0.0:80")
			path := "/containers/" + bad.ID + "/json"
			proxy, watch := watchProxy(t, func(p *harness.Proxy) {
				p.Answer(func(w http.ResponseWriter, r *http.Request) bool {
					if p.Path(r) != path {
						return false
					}
					fail(w, r)
					return true
				})
			})
			watch.WaitOpen(t, listening(t, good, 1))
			harness.WaitHealth(t, watch.HealthSocket, 0)
			others := proxy.Requests("/containers/*/json") - proxy.Requests(path)
			before := time.Now()
			late := start(t, "late", 1, nil, "--tcp", "0.0.0.0:80")
			started := time.Now()
			watch.WaitOpen(t, listening(t, good, 1), listening(t, late, 1))
			if took := time.Since(started); took > soon {
				t.Errorf("a new container was reported after %v, it took %v to start", took, started.Sub(before))
			}
			harness.Eventually(t, "the container is inspected again", func() string {
				if proxy.Requests(path) < 3 {
					return "not yet"
				}
				return ""
			})
			// Other tests start containers at the same time.
			if n := proxy.Requests(path); n > 20 {
				t.Errorf("it was inspected %d times", n)
			}
			t.Logf("inspections of others: %d, then %d", others, proxy.Requests("/containers/*/json")-proxy.Requests(path))
			if n := watch.Logs("level=warning", bad.Name, "cannot be inspected"); n != 1 {
				t.Errorf("the log names the container %d times, want one time", n)
			}
			proxy.Answer(nil)
			watch.WaitOpen(t, listening(t, good, 1), listening(t, late, 1), listening(t, bad, 1))
			watch.Expect(t, 3, harness.Match{})
		})
	}
}

// A proxy that ends its subscriptions to events all the time is no trouble, and a container
// that lives while there is no subscription is reported.
func TestProxyCutsEvents(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	web := start(t, "web", 1, []string{"--publish", "80"}, "--tcp", "0.0.0.0:80")
	proxy, watch := watchProxy(t, func(p *harness.Proxy) {
		p.Answer(func(w http.ResponseWriter, r *http.Request) bool {
			if p.Path(r) != "/events" || r.URL.Query().Get("until") != "" {
				return false
			}
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			p.Forward(w, r.WithContext(ctx))
			panic(http.ErrAbortHandler)
		})
	})
	// Without eBPF, what the engine may have forgotten would be a gap.
	netlink := harness.StartWatch(t, harness.WatchSpec{DockerHost: proxy.Host, Arguments: []string{"--source", "netlink"}})
	watch.WaitOpen(t, listening(t, web, 1))
	netlink.WaitOpen(t, listening(t, web, 1))
	harness.WaitHealth(t, watch.HealthSocket, 0)
	harness.WaitHealth(t, netlink.HealthSocket, 0)
	path := "/containers/" + web.ID + "/json"
	inspections, lists := proxy.Requests(path), proxy.Requests("/containers/json")
	harness.Eventually(t, "several subscriptions end", func() string {
		if result := harness.Run(t, []string{"PORTWATCHER_HEALTH_SOCKET=" + watch.HealthSocket}, "healthcheck"); result.Status != 0 {
			t.Errorf("not ready: %s%s", result.Stdout, result.Stderr)
		}
		if proxy.Requests("/containers/json") < lists+10 {
			return "not yet"
		}
		return ""
	})
	if n := proxy.Requests(path); n != inspections {
		t.Errorf("an unchanged container was inspected %d times more", n-inspections)
	}

	// No subscription is made while a container lives.
	held, resumed := make(chan struct{}), make(chan struct{})
	signal := sync.OnceFunc(func() { close(held) })
	proxy.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if proxy.Path(r) == "/_ping" {
			signal()
			<-resumed
		}
		return false
	})
	<-held
	passing := start(t, "passing", 1, nil, "--tcp", "0.0.0.0:81")
	passing.Do(t, "rm", "--force")
	close(resumed)
	watch.WaitEvent(t, 0, harness.Opened(passing.Name, "tcp", "0.0.0.0", 81))
	watch.WaitEvent(t, 0, harness.Closed(passing.Name, "tcp", "0.0.0.0", 81))
	watch.Marker(t, web, 1000)
	watch.Expect(t, 1+2+2, harness.Match{})
	netlink.Expect(t, 0, harness.Match{Type: "gap"})
	if n := watch.Logs("level=warning", "Docker Engine"); n != 0 {
		t.Errorf("%d warnings about the engine", n)
	}
}

// Where a proxy refuses or delays what is not of one container, portwatcher reports that,
// and watches what it can.
func TestProxyRefuses(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	for name, test := range map[string]struct {
		path    string
		fail    func(http.ResponseWriter, *http.Request)
		ready   bool
		reports string
	}{
		"403 of events": {"/events", refuse(http.StatusForbidden), false, "events: "},
		"403 of info":   {"/info", refuse(http.StatusForbidden), true, "host's name"},
		"info hangs":    {"/info", hang, true, "host's name"},
	} {
		t.Run(name, func(t *testing.T) {
			web := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
			proxy, watch := watchProxy(t, func(p *harness.Proxy) {
				p.Answer(func(w http.ResponseWriter, r *http.Request) bool {
					if p.Path(r) != test.path {
						return false
					}
					test.fail(w, r)
					return true
				})
			}, "--host-name", "node1") // an event without a name would be incomplete
			watch.WaitOpen(t, listening(t, web, 1))
			if test.ready {
				harness.WaitHealth(t, watch.HealthSocket, 0)
			} else if output := harness.WaitHealth(t, watch.HealthSocket, 1); !strings.Contains(output, test.reports) {
				t.Errorf("healthcheck prints %q", output)
			}
			watch.WaitLog(t, "level=warning", test.reports)
			late := start(t, "late", 1, nil, "--tcp", "0.0.0.0:80")
			watch.WaitOpen(t, listening(t, web, 1), listening(t, late, 1))
			proxy.Answer(nil)
			harness.WaitHealth(t, watch.HealthSocket, 0)
		})
	}
}

// A list that fails or hangs delays no new container, and is reported.
func TestProxyFailedList(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	for name, fail := range map[string]func(http.ResponseWriter, *http.Request){"hangs": hang, "500": refuse(http.StatusInternalServerError)} {
		t.Run(name, func(t *testing.T) {
			proxy, watch := watchProxy(t, func(p *harness.Proxy) {
				p.Answer(func(w http.ResponseWriter, r *http.Request) bool {
					if p.Path(r) != "/containers/json" {
						return false
					}
					fail(w, r)
					return true
				})
			})
			harness.Eventually(t, "the list is requested", func() string {
				if proxy.Requests("/containers/json") == 0 {
					return "not yet"
				}
				return ""
			})
			web := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
			watch.WaitOpen(t, listening(t, web, 1))
			watch.WaitLog(t, "level=warning", "list containers")
			proxy.Answer(nil)
			harness.WaitHealth(t, watch.HealthSocket, 0)
			watch.Expect(t, 1, harness.Match{})
		})
	}
}

// A container that was renamed, and one that was paused, while there was no subscription are
// as they are.
func TestProxyRenameUnseen(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	requireEBPF(t)
	web, paused := start(t, "before", 1, nil, "--tcp", "0.0.0.0:80"), start(t, "paused", 1, nil, "--tcp", "0.0.0.0:80")
	proxy, watch := watchProxy(t, func(*harness.Proxy) {})
	watch.WaitOpen(t, listening(t, web, 1), listening(t, paused, 1))
	harness.WaitHealth(t, watch.HealthSocket, 0)
	proxy.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		refuse(http.StatusBadGateway)(w, r)
		return true
	})
	proxy.CutEvents()
	harness.WaitHealth(t, watch.HealthSocket, 1)
	harness.Default.MustDocker(t, "rename", web.Name, harness.Name(t, "after"))
	t.Cleanup(func() { web.Do(t, "rm", "--force") })
	paused.Do(t, "pause")
	web.Refresh(t)
	proxy.Answer(nil)
	harness.WaitHealth(t, watch.HealthSocket, 0)
	watch.Marker(t, web, 1000)
	paused.Do(t, "unpause")
	watch.Marker(t, paused, 1001)
	watch.Expect(t, 2+4, harness.Match{})
}
