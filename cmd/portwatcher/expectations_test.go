package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/expect"
	"portwatcher/internal/filewatch"
)

const oneEntry = "version: 1\nexpect:\n  - {target: web, port: 80, exposure: host}\n"

func logged(hook *logtest.Hook, part string) (count int) {
	for _, entry := range hook.AllEntries() {
		if strings.Contains(entry.Message, part) {
			count++
		}
	}
	return count
}

// The file is read again after it has not changed for an interval; a wrong one changes nothing, and
// the default one may come and go.
func TestExpectationsAreReloaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expected.yaml")
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		log, hook := logtest.NewNullLogger()
		x := &expectations{path: path, optional: true, log: log, again: make(chan struct{}, 1)}
		file, err := x.load()
		if file != nil || err != nil {
			t.Fatalf("without a file: %v, error %v", file, err)
		}
		var applied []*expect.File
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- x.run(ctx, file, func(f *expect.File) { applied = append(applied, f) }) }()
		expect := func(what string, count int, entries int) {
			t.Helper()
			synctest.Wait()
			if len(applied) != count {
				t.Fatalf("%s: %d files were applied, want %d", what, len(applied), count)
			}
			if last := applied[count-1]; (last == nil) != (entries < 0) || last != nil && len(last.Entries) != entries {
				t.Fatalf("%s: applied %+v, want %d entries", what, last, entries)
			}
		}
		put(oneEntry)
		time.Sleep(2*absentInterval + filewatch.Interval)
		expect("it appears", 1, 1)
		put(oneEntry + "  - {target: web, port: x, exposure: host}\n")
		time.Sleep(5 * filewatch.Interval)
		expect("it is wrong", 1, 1)
		if logged(hook, `expected.yaml:4: port: "x"`) != 1 || logged(hook, "the old ones stay") != 1 {
			t.Errorf("the log has %+v", hook.AllEntries())
		}
		put(oneEntry + "  - {target: db, port: 1, exposure: host, until: " + time.Now().AddDate(0, 0, 3).Format("2006-01-02") + "}\n")
		x.reload()
		expect("at once", 2, 2)
		time.Sleep(2*24*time.Hour + time.Hour)
		synctest.Wait()
		if n := logged(hook, "expires after"); n != 3 {
			t.Errorf("%d warnings in two days of what expires, want one at once and one a day", n)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*absentInterval + filewatch.Interval)
		expect("it is gone", 3, -1)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A file that is named must exist, and be right.
func TestExpectationsThatAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expected.yaml")
	x := &expectations{path: path, log: logrus.New()}
	if file, err := x.load(); file != nil || err == nil || !strings.Contains(err.Error(), "--expect: \""+path+"\": ") || status(runtimeError{err}) != exitUsage {
		t.Errorf("no file: %v, error %v", file, err)
	}
	if err := os.WriteFile(path, []byte("version: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if file, err := x.load(); file != nil || err == nil || !strings.Contains(err.Error(), `expected.yaml:1: version: "3": allowed is 1`) || status(runtimeError{err}) != exitUsage {
		t.Errorf("a wrong file: %v, error %v", file, err)
	}
	if file, err := (&expectations{}).load(); file != nil || err != nil {
		t.Errorf("none: %v, error %v", file, err)
	}
}

// A replaced file keeps its mode and its symbolic link, and leaves nothing behind.
func TestReplaceFile(t *testing.T) {
	folder := t.TempDir()
	target, link := filepath.Join(folder, "target.yaml"), filepath.Join(folder, "link.yaml")
	if err := os.WriteFile(target, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target.yaml", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, filepath.Join(folder, "new.yaml")} {
		if err := replaceFile(path, []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(target)
	info, statErr := os.Lstat(target)
	if err != nil || statErr != nil || string(content) != "new" || info.Mode().Perm() != 0o640 {
		t.Errorf("the target is %q with mode %v, errors %v and %v", content, info.Mode(), err, statErr)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 3 {
		t.Errorf("the folder has %v, error %v", entries, err)
	}
}
