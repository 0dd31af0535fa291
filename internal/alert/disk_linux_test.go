package alert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

// TestFullDisk: while the disk is full nothing is sent and nothing is lost; when there is space
// again everything is sent, in order.
func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=4M")
	if errors.Is(err, unix.EPERM) {
		kernel.Skip(t, "mounting a file system needs root (CAP_SYS_ADMIN)")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	const rules = `
group_wait: 0s
rules: [{name: new, when: 'type == "opened"', to: [ops]}]
receivers: [{name: ops, webhook: {url: "http://localhost"}}]
`
	ops := &taker{name: "ops"}
	w := &world{t: t, path: filepath.Join(folder, "journal.db"), config: rules, takers: []*taker{ops}, giveUp: time.Hour}
	w.drifting()
	w.begin()
	await := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s did not come about within a minute; logged\n%s", what, w.log.String())
			}
		}
	}
	await("the cursor", func() bool { _, found, err := w.journal.Cursor(CursorName); return found && err == nil })
	w.opened(1)
	await("the first message", func() bool { return ops.count() == 1 })
	ballast, err := os.Create(filepath.Join(folder, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 4096); err == nil; {
		_, err = ballast.Write(chunk)
	}
	if err := ballast.Close(); err != nil {
		t.Fatal(err)
	}
	port := 2
	await("a full disk", func() bool { w.opened(port); port++; return w.journal.Err() != nil })
	for range 100 {
		w.opened(port)
		port++
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	alerts := func() string { return strings.Join(ops.rules(), ", ") }
	await("the last message", func() bool { return strings.HasSuffix(alerts(), fmt.Sprintf("web/%d/tcp", port-1)) })
	var want []string
	for i := 1; i < port; i++ {
		want = append(want, fmt.Sprintf("new web/%d/tcp", i))
	}
	if got := alerts(); got != strings.Join(want, ", ") {
		t.Errorf("sent %s\nwant %s", got, strings.Join(want, ", "))
	}
}
