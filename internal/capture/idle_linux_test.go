package capture

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

// cpuTime is what this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Settings that add a timer or a wake-up cost an idle instance no CPU, also while a
// closed endpoint waits in its grace.
func TestIdle(t *testing.T) {
	for name, change := range map[string]func(*Tuning){
		"plain":       func(*Tuning) {},
		"close grace": func(t *Tuning) { t.CloseGrace = time.Hour },
		"burst limit": func(t *Tuning) { t.BurstLimit = 5 },
		"bursts":      func(t *Tuning) { t.BurstScans, t.BurstDelay = 3, 10*time.Millisecond },
		"all":         func(t *Tuning) { t.CloseGrace, t.BurstLimit, t.UDPClients = time.Hour, 1, true },
	} {
		t.Run(name, func(t *testing.T) {
			l, b := start(t, func(o *Options) {
				o.Mode = source.Netlink
				o.Tuning.ScanInterval = 500 * time.Millisecond
				change(&o.Tuning)
			}), kernel.NewBox(t)
			l.report(engine.Synced, nil)
			closeIt := b.Listen(80)
			b.Listen(81)
			l.report(engine.Started, boxed(b, "web"))
			id := boxed(b, "web").ID
			kernel.Eventually(t, "both are reported", func() bool { return l.out.sumsOf(id).opened == 2 })
			closeIt()
			kernel.Eventually(t, "the close is known", func() bool {
				for _, s := range l.View().Counters.Pipeline {
					if s.Name == "notifications" && s.In > 0 {
						return true
					}
				}
				return false
			})
			// Another process may be charged to this one by chance: one quiet moment of
			// several is enough, where something spins there is none.
			const idle = 500 * time.Millisecond
			kernel.Await(t, "idle", func() string {
				before := cpuTime(t)
				time.Sleep(idle)
				if used := cpuTime(t) - before; used > idle/20 {
					return used.String() + " of CPU in " + idle.String()
				}
				return ""
			})
		})
	}
}
