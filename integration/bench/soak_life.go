package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

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

// early says that it acts before a portwatcher can have subscribed to anything there.
func (l life) early() bool { return l.number%soakEvery == 0 }

// storms says that it storms once it is watched.
func (l life) storms() bool { return l.number%soakEvery == 1 }

// live starts a container, has it do what it is to do, and removes it. What happened is
// in the soak's truth then.
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
	k.happens(l, id, happened{opened: lifePorts})
	if err := k.awaitWatched(ctx, id); err != nil {
		return err
	}
	if l.storms() {
		if err := k.exec(ctx, l, id, "storm", "--protocol", l.protocol(), "--port", strconv.Itoa(stormPort), "--count", strconv.Itoa(k.storm)); err != nil {
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
	// Its ports close, however it ends: by its own doing, or by the kernel's.
	if how := []string{"stop", "kill", ""}[l.number%3]; how != "" {
		_, err = k.docker(ctx, how, id)
	}
	k.happens(l, id, happened{closed: lifePorts})
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
// its status is 0, and what its output says otherwise: the engine may have been away when
// it ended, and not know its status, or may have lost its output.
func (k *soak) liveEarly(ctx context.Context, l life, id string) error {
	var state string
	err := untilEach(ctx, time.Second, soakPatience, func() (err error) {
		if state, err = k.docker(ctx, "inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", id); err == nil && strings.HasPrefix(state, "true") {
			err = errors.New("a storm that began with its container still goes on")
		}
		return err
	})
	if err != nil {
		return err
	}
	if state == "false 0" {
		k.happens(l, id, happened{k.storm, k.storm})
		return nil
	}
	output, err := k.docker(ctx, "logs", id)
	if err != nil {
		return err
	}
	did, err := countFacts(output)
	if err == nil && did.sum() == 0 {
		err = fmt.Errorf("a storm has ended with the status %s, and its output says nothing", state)
	}
	k.happens(l, id, did)
	return err
}

// exec runs the workload in a container, and adds what it says that it did.
func (k *soak) exec(ctx context.Context, l life, id string, workload ...string) error {
	output, err := k.docker(ctx, append([]string{"exec", id, "/workload"}, workload...)...)
	if err != nil {
		return err
	}
	did, err := countFacts(output)
	k.happens(l, id, did)
	return err
}

// awaitWatched waits until all portwatchers have reported the ports that the container
// holds: what it does from then on is known by every source.
func (k *soak) awaitWatched(ctx context.Context, id string) error {
	return untilEach(ctx, slowly, soakPatience, func() error {
		for _, w := range k.watchers {
			if its := w.accounts.container(id); its.listed.opened < lifePorts {
				return fmt.Errorf("%s has reported %d of the %d ports of container %s", w.source, its.listed.opened, lifePorts, id[:12])
			}
		}
		return nil
	})
}

// docker runs a command of the private engine, while it is there: a restart waits for it.
func (k *soak) docker(ctx context.Context, arguments ...string) (string, error) {
	k.gate.RLock()
	defer k.gate.RUnlock()
	return k.engine.docker(ctx, nil, arguments...)
}

// happens adds to the truth.
func (k *soak) happens(l life, id string, h happened) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	truth := k.watched
	if l.early() {
		truth = k.early
	}
	truth[id] = truth[id].plus(h)
	if !l.early() && !l.storms() {
		k.ordinary[id] = truth[id]
	}
}
