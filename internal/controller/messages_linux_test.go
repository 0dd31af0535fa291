package controller

import (
	"strings"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/port"
)

// quietController returns a controller that does not run, with its log.
func quietController(change func(*Options)) (*Controller, *logtest.Hook) {
	logger, hook := logtest.NewNullLogger()
	options := Options{Engine: &fakeEngine{}, Logger: logger, ProcRoot: "/proc"}
	if change != nil {
		change(&options)
	}
	return New(options), hook
}

// The time between two scans of a burst is no silence.
func TestReadyCountsBursts(t *testing.T) {
	for _, test := range []struct {
		scans int
		age   time.Duration
		ready bool
	}{{2, 40 * time.Second, true}, {2, 100 * time.Second, false}, {1, 40 * time.Second, false}} {
		c, _ := quietController(func(o *Options) {
			o.ScanInterval, o.BurstScans, o.BurstDelay = 500*time.Millisecond, test.scans, 30*time.Second
		})
		g := newGroup(port.Namespace{Inode: 1})
		g.watcher = c.newWatcher(g)
		g.watcher.last.Store(time.Now().Add(-test.age).UnixNano())
		c.groups[g.id], c.synced, c.link.lost = g, true, nil
		if err := c.Ready(); (err == nil) != test.ready {
			t.Errorf("%d scans in a burst, the last %s ago: ready is %v", test.scans, test.age, err)
		}
	}
}

// Who looks once does not wait for anything.
func TestOnceDoesNotWaitForContainers(t *testing.T) {
	c, logs := quietController(func(o *Options) {
		o.Unmatched = func([]*port.Container) []string { return []string{"nosuch"} }
	})
	if open, err := c.Once(t.Context()); err != nil || len(open) != 0 {
		t.Fatalf("open %v, error %v", open, err)
	}
	last := logs.LastEntry()
	if last == nil || !strings.Contains(last.Message, `"nosuch"`) || strings.Contains(last.Message, "wait") {
		t.Errorf("logged %+v, want that nothing matches, and not that it is waited for", last)
	}
}

func TestTroubleIsTold(t *testing.T) {
	for denied, want := range map[int]string{1: "The open files of a process cannot", 2: "The open files of 2 processes cannot"} {
		c, logs := quietController(nil)
		c.tellTrouble(denied, nil)
		c.tellTrouble(denied, nil)
		if all := logs.AllEntries(); len(all) != 1 || !strings.HasPrefix(all[0].Message, want) || !strings.Contains(all[0].Message, "SYS_PTRACE") {
			t.Errorf("%d denied: logged %v, want once %q with what it takes", denied, all, want)
		}
	}
}
