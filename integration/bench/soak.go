package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/testutil/truth"
)

const (
	// stopTime is how long a portwatcher is stopped by SIGSTOP, soakStops times each.
	stopTime  = 5 * time.Second
	soakStops = 2
	// soakRestarts are those of the engine.
	soakRestarts = 4
	// engineDown is how long the engine is away in a restart.
	engineDown = 2 * time.Second
	// soakLife is the time of a container, as a share of the whole.
	soakLife = 10
)

// A soak is an engine of its own on which containers come and go, and a portwatcher with each
// source that watches them.
type soak struct {
	engine   *docker.Private
	image    string
	storm    int // times that a storm opens and closes its port
	watchers []*soakWatcher
	gate     sync.RWMutex // closed while the engine is away

	mutex sync.Mutex
	// What happened, by container id: in those that did nothing else before all
	// portwatchers watched them, and in those that stormed at once. Ordinary are those
	// of the first that did not storm.
	watched, early, ordinary map[string]truth.Count
}

// A soakWatcher is a portwatcher with what it reported.
type soakWatcher struct {
	*watcher
	source, address string
	account         *account
	before, after   holding
	unbalanced      []truth.Problem // stages of the pipeline
}

// runSoak measures whether everything adds up, and whether something is left over, after
// containers have come and gone for long.
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
	portwatcher, workload, err := buildBinaries(s.portwatcher, folder)
	if err != nil {
		return err
	}
	progress("soak: starting an engine")
	engine, err := docker.StartPrivate(ctx, true)
	if err != nil {
		r.missing("soak", err.Error())
		return nil
	}
	defer func() { err = errors.Join(err, engine.Discard()) }()
	k := &soak{
		engine: engine, image: "portwatcher-bench:soak", storm: s.soakStorm,
		watched: map[string]truth.Count{}, early: map[string]truth.Count{}, ordinary: map[string]truth.Count{},
	}
	if err := engine.Import(ctx, k.image, []string{workload}, `ENTRYPOINT ["`+truth.WorkloadPath+`"]`); err != nil {
		return err
	}
	for _, source := range sources {
		w, err := k.watch(ctx, portwatcher, source)
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
	return k.failed()
}

// watch starts portwatcher and returns when it is ready.
func (k *soak) watch(ctx context.Context, binary, source string) (*soakWatcher, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	w := &soakWatcher{source: source, address: address}
	if w.watcher, _, err = launchWatcher(binary, 0, "--source", source, "--docker-host", k.engine.Host, "--listen", address); err != nil {
		return nil, err
	}
	w.account = w.watcher.account()
	err = untilEach(ctx, pollTime, completePatience, func() error {
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
		if err := w.finish(ctx, k.happened()); err != nil {
			return err
		}
	}
	return nil
}

// comeAndGo starts and ends the containers, each at its own moment, and
// meanwhile stops portwatchers and restarts the engine.
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
	if err := k.engine.End(signal); err != nil {
		return err
	}
	// Also after an interrupt: an engine is needed to remove the containers.
	err := errors.Join(wait(ctx, engineDown), k.engine.Launch())
	return errors.Join(err, k.engine.WaitReady(context.WithoutCancel(ctx)))
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

// happened is what happened in all containers.
func (k *soak) happened() map[string]truth.Count {
	all := maps.Clone(k.watched)
	maps.Copy(all, k.early)
	return all
}

// finish waits until all is reported and released, and stops portwatcher.
func (w *soakWatcher) finish(ctx context.Context, happened map[string]truth.Count) error {
	err := w.account.await(ctx, w.watcher, happened, w.source)
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

const (
	// Each soakEvery-th container storms from its first moment, and another each
	// soakEvery-th when all portwatchers watch it.
	soakEvery = 4
	// A container that is to be watched first holds its ports meanwhile.
	lifePort  = 9000
	lifePorts = 2
	// What it opens then, soakBursts times: soakBurst ports after burstPort.
	burstPort, soakBurst, soakBursts = 10_000, 20, 4
	burstHold, burstInterval         = 100 * time.Millisecond, 50 * time.Millisecond
	// soakPatience bounds the wait until a container is watched, and until one that
	// ends by itself has ended.
	soakPatience = 2 * time.Minute
)

// A life is what one container is to do.
type life struct {
	number int
	span   time.Duration
}

// protocol alternates.
func (l life) protocol() string { return []string{"tcp", "udp"}[l.number/soakEvery%2] }

// early reports whether it acts before a portwatcher can have subscribed to anything there.
func (l life) early() bool { return l.number%soakEvery == 0 }

// storms reports whether it storms when it is watched.
func (l life) storms() bool { return l.number%soakEvery == 1 }

// live starts a container, makes it do what it is to do, and removes it. What happened is
// added to the soak then.
func (k *soak) live(ctx context.Context, l life) (err error) {
	id, err := k.docker(ctx, append([]string{"run", "--detach", "--network", "none", k.image}, k.command(l)...)...)
	if err != nil {
		return err
	}
	defer func() {
		_, removeErr := k.docker(context.WithoutCancel(ctx), "rm", "--force", id)
		err = errors.Join(err, removeErr)
	}()
	if l.early() {
		return k.liveEarly(ctx, l, id)
	}
	k.happens(l, id, truth.Count{Opened: lifePorts})
	if err := k.awaitWatched(ctx, id); err != nil {
		return err
	}
	if l.storms() {
		err := k.exec(ctx, l, id, "storm", "--protocol", l.protocol(), "--port", strconv.Itoa(stormPort), "--count", strconv.Itoa(k.storm))
		if err != nil {
			return err
		}
	}
	for range soakBursts {
		err := k.exec(ctx, l, id, "burst", "--protocol", l.protocol(), "--base-port", strconv.Itoa(burstPort), "--count", strconv.Itoa(soakBurst),
			"--hold", burstHold.String(), "--interval", burstInterval.String())
		if err != nil {
			return err
		}
		if err := wait(ctx, l.span/soakBursts); err != nil {
			return err
		}
	}
	// Its ports close, however it ends.
	if how := []string{"stop", "kill", ""}[l.number%3]; how != "" {
		_, err = k.docker(ctx, how, id)
	}
	k.happens(l, id, truth.Count{Closed: lifePorts})
	return err
}

// command is that of the container itself.
func (k *soak) command(l life) []string {
	if l.early() {
		return []string{"storm", "--protocol", l.protocol(), "--port", strconv.Itoa(stormPort), "--count", strconv.Itoa(k.storm)}
	}
	return []string{"listen", "--mptcp=false", "--tcp", fmt.Sprintf("0.0.0.0:%d", lifePort), "--udp", fmt.Sprintf("0.0.0.0:%d", lifePort+1)}
}

// liveEarly waits until a storm has ended by itself. It has done what it was to do where
// its status is 0, and what its facts are otherwise: the engine may have been away when it
// ended, and have neither its status nor its output.
func (k *soak) liveEarly(ctx context.Context, l life, id string) error {
	var state string
	err := untilEach(ctx, time.Second, soakPatience, func() (err error) {
		state, err = k.docker(ctx, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", id)
		if err == nil && strings.HasPrefix(state, "true") {
			err = errors.New("a storm that began with its container goes on")
		}
		return err
	})
	if err != nil {
		return err
	}
	if state == "false 0" {
		k.happens(l, id, truth.Count{Opened: uint64(k.storm), Closed: uint64(k.storm)})
		return nil
	}
	output, err := k.docker(ctx, "logs", id)
	if err != nil {
		return err
	}
	facts, err := truth.ReadFacts(output)
	if err == nil && len(facts) == 0 {
		err = fmt.Errorf("a storm has ended with the status %s, and without a fact", state)
	}
	k.happens(l, id, truth.CountFacts(facts))
	return err
}

// exec runs the workload in a container, and adds what it did.
func (k *soak) exec(ctx context.Context, l life, id string, workload ...string) error {
	output, err := k.docker(ctx, append([]string{"exec", id, truth.WorkloadPath}, workload...)...)
	if err != nil {
		return err
	}
	facts, err := truth.ReadFacts(output)
	k.happens(l, id, truth.CountFacts(facts))
	return err
}

// awaitWatched waits until all portwatchers have reported the ports that the container
// holds: what it does from then on is observed by every source.
func (k *soak) awaitWatched(ctx context.Context, id string) error {
	return untilEach(ctx, pollTime, soakPatience, func() error {
		for _, w := range k.watchers {
			if opened := w.account.of(id).Listed.Opened; opened < lifePorts {
				return fmt.Errorf("%s has reported %d of the %d ports of container %s", w.source, opened, lifePorts, id[:12])
			}
		}
		return nil
	})
}

// docker runs a command of the private engine, while it is there: a restart waits for it.
func (k *soak) docker(ctx context.Context, arguments ...string) (string, error) {
	k.gate.RLock()
	defer k.gate.RUnlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return k.engine.Run(context.WithoutCancel(ctx), arguments...)
}

// happens adds to what happened.
func (k *soak) happens(l life, id string, did truth.Count) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	happened := k.watched
	if l.early() {
		happened = k.early
	}
	happened[id] = happened[id].Add(did)
	if !l.early() && !l.storms() {
		k.ordinary[id] = happened[id]
	}
}
