package probe

import (
	"errors"
	"os"
	"testing"
)

func TestJudgePreemption(t *testing.T) {
	const dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-01-01)"
	for _, test := range []struct {
		version, mode, arguments string
		ok                       bool
	}{
		{"#57-Ubuntu SMP Thu Jan 1", "", "", true},
		{"#1 SMP PREEMPT Thu Jan 1", "", "", false},
		{"#1 SMP PREEMPT_RT Debian 6.1", "", "preempt=none", false},
		{dynamic, "none (voluntary) full \n", "", true},
		{dynamic, "(none) voluntary full \n", "preempt=full", true}, // it was changed
		{dynamic, "none voluntary (full) \n", "preempt=none", false},
		{dynamic, "none voluntary full (lazy)\n", "", false},
		{dynamic, "", "quiet preempt=none", true},
		{dynamic, "", "preempt=full quiet", false},
		{dynamic, "", "quiet", false},
		{dynamic, "nonsense", "", false},
	} {
		if err := judgePreemption(test.version, test.mode, test.arguments, nil); (err == nil) != test.ok {
			t.Errorf("version %q, mode %q, arguments %q: error %v, want one: %v", test.version, test.mode, test.arguments, err, !test.ok)
		}
	}
	if err := judgePreemption(dynamic, "", "", os.ErrPermission); !errors.Is(err, os.ErrPermission) {
		t.Errorf("error %v, want the one that kept the mode from being known", err)
	}
}
