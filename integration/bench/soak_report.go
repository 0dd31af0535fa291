package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"portwatcher/integration/internal/docker"
	"portwatcher/internal/testutil/truth"
)

// judge returns all, of the containers whose openings and closings the source can observe,
// and early, of those where a source without eBPF cannot: there nothing may be reported too
// often.
func (k *soak) judge(w *soakWatcher) (all, early *truth.Judgement) {
	if w.source == sourceEBPF {
		return w.account.judge(k.happened(), w.source), &truth.Judgement{}
	}
	all, early = w.account.judge(k.watched, w.source), w.account.judge(k.early, w.source)
	early.Problems = slices.DeleteFunc(early.Problems, isUnaccounted)
	return all, early
}

func isUnaccounted(p truth.Problem) bool { return p.Kind == truth.Unaccounted }

// failed returns an error where a sum is wrong.
func (k *soak) failed() (err error) {
	for _, w := range k.watchers {
		all, early := k.judge(w)
		if problems := slices.Concat(all.Problems, early.Problems, w.unbalanced); len(problems) > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %v", w.source, problems[:min(len(problems), 10)]))
		}
	}
	return err
}

func (k *soak) table(s *settings) table {
	aims := []aim{
		value("containers that came and went", showCount(len(k.watched)+len(k.early))),
		value("of them with a storm from their first moment", showCount(len(k.early))),
	}
	for _, w := range k.watchers {
		aims = append(aims, k.aims(w)...)
	}
	return aimTable(fmt.Sprintf("%s containers that come and go in %v", showCount(s.soakContainers), s.soakLength), []string{fmt.Sprintf(
		"On an engine that the bench starts, which ends %d times, by SIGKILL and SIGTERM by turns, and starts again after %v, while the containers live on; each portwatcher is stopped by SIGSTOP %d times for %v. "+
			"One container of %d storms from its first moment: %s times it opens and closes a port without pause. Another does when it is watched. All but the first kind hold %d ports and open %d others at %d times, %d each; they end by docker stop, "+
			"docker kill and docker rm by turns. What a container did before portwatcher could subscribe to its notifications is observed by eBPF only: those that storm at once are apart with netlink. "+
			"What is held before is read %v after the first %d containers.",
		soakRestarts, engineDown, soakStops, stopTime, soakEvery, showCount(k.storm), lifePorts, soakBursts*soakBurst, soakBursts, soakBurst, fleetSettle, soakEvery)}, aims)
}

// aims are those of one portwatcher.
func (k *soak) aims(w *soakWatcher) []aim {
	all, early := k.judge(w)
	listed, ordinary := uint64(0), uint64(0)
	for id, did := range k.ordinary {
		its := w.account.of(id).Listed
		listed += min(its.Opened, did.Opened) + min(its.Closed, did.Closed)
		ordinary += did.Sum()
	}
	who := w.source + ": "
	scope := "openings and closings"
	if w.source == sourceNetlink {
		scope = "openings and closings, but of storms from the first moment"
	}
	aims := []aim{
		value(who+scope, showCount(all.Happened)),
		value(who+"listed, in bursts, in gaps", fmt.Sprintf("%s, %s, %s", showCount(all.Listed), showCount(all.Bursts), showCount(all.Gaps))),
		value(who+"gaps without a number", fmt.Sprint(all.Unnumbered)),
		{who + "unaccounted", showCount(all.Unaccounted()), wantedSum(w.source), !slices.ContainsFunc(all.Problems, isUnaccounted)},
		{who + "sums that are wrong", fmt.Sprint(len(all.Problems) + len(early.Problems)), "0", len(all.Problems)+len(early.Problems) == 0},
		{who + "of containers without a storm, listed one by one", fmt.Sprintf("%s of %s", showCount(listed), showCount(ordinary)), "all", listed == ordinary},
	}
	if w.source == sourceNetlink {
		aims = append(aims, value(who+"of storms from the first moment: in an account", fmt.Sprintf("%s of %s", showCount(int64(early.Happened)-early.Unaccounted()), showCount(early.Happened))))
	}
	limit := int64(aimRelease * float64(w.before.memory))
	return append(aims,
		aim{who + "stages of the pipeline that do not balance", fmt.Sprint(len(w.unbalanced)), "0", len(w.unbalanced) == 0},
		noMore(who+"goroutines", w.before.goroutines, w.after.goroutines),
		noMore(who+"descriptors", w.before.descriptors, w.after.descriptors),
		noMore(who+"network namespaces kept alive", w.before.namespaces, w.after.namespaces),
		aim{who + "resident memory (VmRSS)", fmt.Sprintf("%s, %s before", showMegabytes(w.after.memory), showMegabytes(w.before.memory)), "under " + showMegabytes(limit), w.after.memory < limit})
}

const (
	// leftPatience bounds the wait until the stages of the pipeline balance.
	leftPatience = 30 * time.Second
	metricsWait  = 10 * time.Second
)

// holding is what a portwatcher keeps.
type holding struct {
	goroutines, descriptors, namespaces int
	memory                              int64 // VmRSS in bytes
}

// readHolding asks a portwatcher that serves at an address, and the kernel.
func readHolding(pid int, address string) (h holding, err error) {
	metrics, err := scrape(address)
	if err != nil {
		return h, err
	}
	if goroutines := metrics["go_goroutines"]; len(goroutines) == 1 {
		h.goroutines = int(goroutines[0].Value)
	}
	if h.memory, err = residentMemory(pid); err != nil {
		return h, err
	}
	held, err := docker.Holding(pid)
	if err == nil {
		h.descriptors, h.namespaces = held.Descriptors, len(held.Namespaces)
	}
	return h, err
}

// awaitHolding waits until no more is held than before, or patience ends, and returns
// what is held then.
func awaitHolding(ctx context.Context, pid int, address string, before holding) (h holding, err error) {
	err = untilEach(ctx, pollTime, memoryPatience, func() (err error) {
		if h, err = readHolding(pid, address); err != nil {
			return err
		}
		if h.goroutines > before.goroutines || h.descriptors > before.descriptors || h.namespaces > before.namespaces ||
			float64(h.memory) >= aimRelease*float64(before.memory) {
			return errHeld
		}
		return nil
	})
	if errors.Is(err, errHeld) {
		err = nil // the table shows it
	}
	return h, err
}

var errHeld = errors.New("more is held than before")

// scrape reads the metrics.
func scrape(address string) (map[string][]truth.Series, error) {
	client := &http.Client{Timeout: metricsWait, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + pathMetrics)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %w", pathMetrics, response.Status, err)
	}
	return truth.ReadMetrics(string(text))
}

// awaitBalance waits until all stages of the pipeline balance, and returns what does not in
// the end.
func awaitBalance(ctx context.Context, address, source string) (problems []truth.Problem, err error) {
	err = untilEach(ctx, pollTime, leftPatience, func() error {
		metrics, err := scrape(address)
		if err != nil {
			return err
		}
		if problems = truth.Unbalanced(metrics, truth.PrecisionOf(source)); len(problems) > 0 {
			return errUnbalanced
		}
		return nil
	})
	if errors.Is(err, errUnbalanced) {
		err = nil // the table shows it
	}
	return problems, err
}

var errUnbalanced = errors.New("the stages do not balance")
