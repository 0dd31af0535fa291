package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestListLeavesOutTheDead(t *testing.T) {
	f := newFakeEngine()
	for i := range 3 * parallelInspects {
		f.run(fmt.Sprintf("%02d", i), 100+i)
	}
	f.onList = func() { f.kill("05") }
	e, _ := f.engine()
	got, err := e.List(t.Context())
	if err != nil || len(got) != 3*parallelInspects-1 {
		t.Fatalf("got %d containers, %v", len(got), err)
	}
	for i := range got[1:] {
		if got[i].Name >= got[i+1].Name {
			t.Errorf("%s before %s", got[i].Name, got[i+1].Name)
		}
	}
}

// One container that cannot be inspected does not hide the others.
func TestListNamesTheFailed(t *testing.T) {
	f := newFakeEngine()
	f.run("good", 1)
	f.run("bad", 2)
	f.inspectErr["bad"] = errors.New("layer is unexpectedly nil")
	e, _ := f.engine()
	got, err := e.List(t.Context())
	if len(got) != 1 || got[0].ID != "good" {
		t.Errorf("got %v", got)
	}
	if err == nil || !strings.Contains(err.Error(), "inspect container bad: layer") {
		t.Errorf("got %v", err)
	}

	f.listErr = errors.New("database is locked")
	if got, err := e.List(t.Context()); got != nil || err == nil || !strings.Contains(err.Error(), "list containers: database") {
		t.Errorf("got %v, %v", got, err)
	}
	f.absent = errors.New("nobody there")
	var connect *ConnectError
	if _, err := e.List(t.Context()); !errors.As(err, &connect) {
		t.Errorf("got %v", err)
	}
	if _, err := e.Info(t.Context()); !errors.As(err, &connect) {
		t.Errorf("got %v", err)
	}
}
