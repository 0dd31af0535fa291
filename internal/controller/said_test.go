package controller

import (
	"fmt"
	"testing"
)

func TestSaidIsBounded(t *testing.T) {
	var s said
	if !s.add("first") || s.add("first") {
		t.Error("the first key is not told once")
	}
	for i := range 3 * maxSaid {
		key := fmt.Sprint("proc net:", i)
		if !s.add(key) || s.add(key) {
			t.Fatalf("%s is not told once", key)
		}
	}
	if len(s.keys) != maxSaid || len(s.oldest) != maxSaid || cap(s.oldest) > 4*maxSaid {
		t.Errorf("%d keys, %d in order, room for %d; want at most %d", len(s.keys), len(s.oldest), cap(s.oldest), maxSaid)
	}
	if !s.add("first") {
		t.Error("the oldest key is still remembered")
	}
}
