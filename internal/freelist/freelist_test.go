package freelist

import "testing"

func TestList(t *testing.T) {
	l := New[int](1)
	first, second := l.Take(), l.Take()
	l.Give(first)
	l.Give(second) // one too many: dropped
	if l.Take() != first {
		t.Error("the value handed back first is not reused")
	}
	if v := l.Take(); v == first || v == second {
		t.Error("a value is used twice")
	}
	if n := testing.AllocsPerRun(10, func() { l.Give(first); first = l.Take() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
