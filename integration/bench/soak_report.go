package main

import (
	"errors"
	"fmt"
	"strings"
)

// balance is that of the containers whose openings and closings the source can know, and
// early of those where a source without eBPF cannot.
func (k *soak) balance(w *soakWatcher) (all, early balance) {
	if w.source == sourceEBPF {
		return w.accounts.balance(k.truth()), balance{}
	}
	return w.accounts.balance(k.watched), w.accounts.balance(k.early)
}

// broken says what does not add up.
func (k *soak) broken(w *soakWatcher) (problems []string) {
	all, early := k.balance(w)
	problems = append(append(problems, all.problems...), early.problems...)
	if n := all.unaccounted(); n != 0 && (w.source == sourceEBPF || n < 0 || all.unnumbered == 0) {
		problems = append(append(problems, showSum(n)+" openings and closings are in no account"), all.short...)
	}
	return append(problems, w.unbalanced...)
}

// judge returns an error where a sum is broken.
func (k *soak) judge() (err error) {
	for _, w := range k.watchers {
		if problems := k.broken(w); len(problems) > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %s", w.source, strings.Join(problems[:min(len(problems), 10)], "; ")))
		}
	}
	return err
}

func (k *soak) table(s *settings) table {
	aims := []aim{
		{"containers that came and went", grouped(int64(len(k.watched) + len(k.early))), "", false},
		{"of them with a storm from their first moment", grouped(int64(len(k.early))), "", false},
	}
	for _, w := range k.watchers {
		aims = append(aims, k.aims(w)...)
	}
	return aimTable(fmt.Sprintf("%s containers that come and go in %v", grouped(int64(s.soakContainers)), s.soakLength), []string{fmt.Sprintf(
		"On an engine that the bench starts, which ends %d times, by SIGKILL and SIGTERM by turns, and starts again after %v, while the containers live on; each portwatcher is stopped by SIGSTOP %d times for %v. "+
			"One container of %d storms from its first moment: %s times it opens and closes a port without pause. Another does when it is watched. All but the first kind hold %d ports and open %d others at %d times, %d each; they end by docker stop, "+
			"docker kill and docker rm by turns. What a container did before portwatcher could subscribe to its notifications is known with eBPF only: those that storm at once are apart with netlink. "+
			"What is held before is read %v after the first %d containers.",
		soakRestarts, engineDown, soakStops, stopTime, soakEvery, grouped(int64(k.storm)), lifePorts, soakBursts*soakBurst, soakBursts, soakBurst, fleetSettle, soakEvery)}, aims)
}

// aims are those of one portwatcher.
func (k *soak) aims(w *soakWatcher) []aim {
	all, early := k.balance(w)
	listed, ordinary := 0, 0
	for id, did := range k.ordinary {
		its := w.accounts.container(id).listed
		listed += min(its.opened, did.opened) + min(its.closed, did.closed)
		ordinary += did.sum()
	}
	who := w.source + ": "
	want, scope := "0", "openings and closings"
	if w.source == sourceNetlink {
		want, scope = "0, or a gap without a number", "openings and closings, but of storms from the first moment"
	}
	aims := []aim{
		{who + scope, grouped(int64(all.happened)), "", false},
		{who + "listed, in bursts, in gaps", fmt.Sprintf("%s, %s, %s", showSum(all.listed), showSum(all.bursts), showSum(all.gaps)), "", false},
		{who + "gaps without a number", fmt.Sprint(all.unnumbered), "", false},
		{who + "unaccounted", showSum(all.unaccounted()), want, all.unaccounted() == 0 || all.unnumbered > 0 && all.unaccounted() > 0 && w.source == sourceNetlink},
		{who + "containers whose sums are wrong", fmt.Sprint(len(all.problems) + len(early.problems)), "0", len(all.problems)+len(early.problems) == 0},
		{who + "of containers without a storm, listed one by one", fmt.Sprintf("%s of %s", showSum(listed), showSum(ordinary)), "all", listed == ordinary},
	}
	if w.source == sourceNetlink {
		aims = append(aims, aim{who + "of storms from the first moment: in an account", fmt.Sprintf("%s of %s", showSum(early.happened-early.unaccounted()), showSum(early.happened)), "", false})
	}
	kept := func(what string, before, after int) aim {
		return aim{who + what, fmt.Sprintf("%d, %d before", after, before), "no more", after <= before}
	}
	limit := int64(aimRelease * float64(w.before.memory))
	return append(aims,
		aim{who + "stages of the pipeline that do not balance", fmt.Sprint(len(w.unbalanced)), "0", len(w.unbalanced) == 0},
		kept("goroutines", w.before.goroutines, w.after.goroutines),
		kept("descriptors", w.before.descriptors, w.after.descriptors),
		kept("network namespaces kept alive", w.before.namespaces, w.after.namespaces),
		aim{who + "resident memory (VmRSS)", fmt.Sprintf("%s, %s before", showMegabytes(w.after.memory), showMegabytes(w.before.memory)), "under " + showMegabytes(limit), w.after.memory < limit})
}
