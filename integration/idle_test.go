package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// What has nothing to watch does next to nothing, whatever its settings: a timer that
// wakes itself would take a whole processor.
func TestIdle(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	for name, arguments := range map[string][]string{
		"close grace":          {"--close-grace", "1s"},
		"close grace, netlink": {"--close-grace", "1s", "--source", netlink},
		"burst limit":          {"--burst-limit", "10"},
		"bursts of scans":      {"--burst-scans", "5", "--source", netlink},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watch := harness.StartWatch(t, harness.WatchSpec{Monitor: "none-such", Arguments: append(arguments, "--state", "memory")})
			watch.WaitLog(t, "The journal is in memory")
			// The start itself takes some. What never ends is in each measurement.
			harness.Eventually(t, "it takes less than 10 % of a processor", func() string {
				const length = 3 * time.Second
				before := processorTime(t, watch.PID())
				time.Sleep(length)
				if took := processorTime(t, watch.PID()) - before; took > length/10 {
					return fmt.Sprintf("%v in %v", took, length)
				}
				return ""
			})
		})
	}
}

// processorTime is how much processor time a process has taken.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// After the name, which may have blanks: state is field 3, utime 14, stime 15.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[14-3 : 15-3+1] {
		number, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("/proc/%d/stat: %v: %s", pid, err, stat)
		}
		ticks += number
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}
