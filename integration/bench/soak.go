package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stopTime is how long a portwatcher is stopped by SIGSTOP, soakStops times each.
	stopTime  = 5 * time.Second
	soakStops = 2
	// soakRestarts are those of the engine.
	soakRestarts = 4
	// soakLife is the time of a container, as a share of the whole.
	soakLife = 10
)

// A soak has containers come and go on an engine of its own, and portwatchers with each
// source that watch them.
type soak struct {
	engine   *privateEngine
	image    string
	storm    int // times that a storm opens and closes its port
	watchers []*soakWatcher
	gate     sync.RWMutex // closed while the engine is away

	mutex sync.Mutex
	// What happened, by container id: in those that did nothing else before all
	// portwatchers watched them, and in those that stormed at once. Ordinary are those
	// of the first that did not storm.
	watched, early, ordinary map[string]happened
}

// A soakWatcher is a portwatcher with what it reported.
type soakWatcher struct {
	*watcher
	source, address string
	accounts        *accounts
	before, after   holding
	unbalanced      []string // stages of the pipeline
}

// runSoak measures nothing but whether everything adds up, and whether something is left
// over, when containers have come and gone for long.
func runSoak(ctx context.Context, s *settings, r *report) (err error) {
	if os.Geteuid() != 0 {
		r.missing("soak", "an engine is started by root only")
		return nil
	}
	folder, err := os.MkdirTemp("", "portwatcher-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	built, err := buildBinaries(ctx, s.portwatcher, folder)
	if err != nil {
		return err
	}
	progress("soak: starting an engine")
	engine, err := startPrivateEngine(ctx)
	if err != nil {
		r.missing("soak", err.Error())
		return nil
	}
	defer func() { err = errors.Join(err, engine.discard()) }()
	k := &soak{
		engine: engine, image: "portwatcher-bench:soak", storm: s.soakStorm,
		watched: map[string]happened{}, early: map[string]happened{}, ordinary: map[string]happened{},
	}
	archive, err := imageArchive([]string{built.workload})
	if err != nil {
		return err
	}
	if _, err := engine.docker(ctx, archive, "import", "--change", `ENTRYPOINT ["/workload"]`, "-", k.image); err != nil {
		return err
	}
	for _, source := range sources {
		w, err := k.watch(ctx, built.portwatcher, source)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.missing("soak, "+source, err.Error())
			continue
		}
		defer func() { _, _ = w.stop() }() // where it was not stopped before
		k.watchers = append(k.watchers, w)
	}
	if err := k.measure(ctx, s); err != nil {
		return err
	}
	r.add(k.table(s))
	return k.judge()
}

// watch starts portwatcher and returns when it is ready.
func (k *soak) watch(ctx context.Context, binary, source string) (*soakWatcher, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	w := &soakWatcher{source: source, address: address, accounts: newAccounts()}
	if w.watcher, _, err = launchWatcher(binary, 0, "--source", source, "--docker-host", k.engine.host(), "--listen", address); err != nil {
		return nil, err
	}
	w.observe(w.accounts.add)
	err = untilEach(ctx, slowly, completePatience, func() error {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return err
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s %w", response.Status, err)
		}
		return nil
	})
	if err != nil {
		_, stopErr := w.stop()
		return nil, errors.Join(fmt.Errorf("%w; its log:\n%s", err, w.log.String()), stopErr)
	}
	return w, nil
}

// measure does everything from the first container to the end of the portwatchers.
func (k *soak) measure(ctx context.Context, s *settings) error {
	progress("soak: the first containers, and what is held after them")
	for number := range soakEvery { // what is made once and kept is made now
		if err := k.live(ctx, life{number, time.Second}); err != nil {
			return err
		}
	}
	if err := wait(ctx, fleetSettle); err != nil {
		return err
	}
	for _, w := range k.watchers {
		var err error
		if w.before, err = readHolding(w.process.Process.Pid, w.address); err != nil {
			return err
		}
	}
	if err := k.comeAndGo(ctx, s); err != nil {
		return err
	}
	for _, w := range k.watchers {
		progress("soak: what %s has reported, and what it holds", w.source)
		if err := w.finish(ctx, k.truth()); err != nil {
			return err
		}
	}
	return nil
}

// comeAndGo has the containers live, each from its own moment on, and disturbs.
func (k *soak) comeAndGo(ctx context.Context, s *settings) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	var mutex sync.Mutex
	var failures []error
	run := func(after time.Duration, do func() error) {
		work.Go(func() {
			err := wait(ctx, after)
			if err == nil {
				err = do()
			}
			if err != nil {
				mutex.Lock()
				failures = append(failures, err)
				mutex.Unlock()
				cancel() // the others end
			}
		})
	}
	span := s.soakLength / soakLife
	begins := s.soakLength - span
	for number := range s.soakContainers {
		run(begins*time.Duration(number)/time.Duration(s.soakContainers), func() error {
			if number%20 == 0 {
				progress("soak: container %d of %d", number+1, s.soakContainers)
			}
			return k.live(ctx, life{number, span})
		})
	}
	for n := range soakRestarts {
		run(s.soakLength*time.Duration(n+1)/(soakRestarts+1), func() error {
			return k.restart(ctx, []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[n%2])
		})
	}
	for n := range soakStops * len(k.watchers) {
		run(s.soakLength*time.Duration(2*n+1)/time.Duration(2*soakStops*len(k.watchers)), func() error {
			return k.watchers[n%len(k.watchers)].pause(ctx)
		})
	}
	work.Wait()
	if len(failures) > 0 {
		return failures[0] // the others are of the end that it brought
	}
	return nil
}

// restart ends the engine and starts it again, while no command is under way.
func (k *soak) restart(ctx context.Context, signal syscall.Signal) error {
	k.gate.Lock()
	defer k.gate.Unlock()
	progress("soak: the engine ends by %s, and starts again", unix.SignalName(signal))
	return k.engine.restart(ctx, signal)
}

// pause stops portwatcher for stopTime.
func (w *soakWatcher) pause(ctx context.Context) error {
	progress("soak: %s is stopped for %v", w.source, stopTime)
	if err := w.process.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := wait(ctx, stopTime)
	return errors.Join(err, w.process.Process.Signal(syscall.SIGCONT))
}

// truth is what happened in all containers.
func (k *soak) truth() map[string]happened {
	all := map[string]happened{}
	for _, part := range []map[string]happened{k.watched, k.early} {
		for id, h := range part {
			all[id] = h
		}
	}
	return all
}

// finish waits until all is reported and let go, and stops portwatcher.
func (w *soakWatcher) finish(ctx context.Context, truth map[string]happened) error {
	err := awaitAccounts(ctx, w.watcher, w.accounts, truth)
	if err == nil {
		w.unbalanced, err = awaitBalance(ctx, w.address, w.source)
	}
	if err == nil {
		w.after, err = awaitHolding(ctx, w.process.Process.Pid, w.address, w.before)
	}
	if err != nil {
		return err
	}
	_, err = w.stop()
	return err
}
