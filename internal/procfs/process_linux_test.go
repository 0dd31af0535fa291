package procfs

import (
	"os"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

func TestDescribeGoneProcess(t *testing.T) {
	if p := Describe("/proc", 1<<30); p.PID != 1<<30 || p.Name != "" || p.UID != nil {
		t.Errorf("%+v; want the pid alone", p)
	}
}

// The names that eBPF, comm and stat show are those of status, whatever is in them.
func TestNamesAreTheSame(t *testing.T) {
	before, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	rename := func(name string) {
		t.Helper()
		if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer rename(strings.TrimSuffix(string(before), "\n"))
	for _, name := range []string{`a\b`, "x\ny", `a\nb`, `\\`, "\n\n", "end\\", "\ta\rb ", "(a) b"} {
		rename(name)
		p := Describe("/proc", os.Getpid())
		if stat, err := ReadStat("/proc", os.Getpid()); p.Name != name || err != nil || string(stat.Name) != name {
			t.Errorf("%q: the name is %q in status and %q in stat, error %v", name, p.Name, stat.Name, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("7 (a) (b) Z 1 1 1 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 18446744073709551615 8192 1"))
	f.Add([]byte("7 )( Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ParseStat(b)
		if ok && (s.State == 0 || len(s.Name) > len(b)) {
			t.Errorf("%q is parsed as %+v", b, s)
		}
	})
}

func TestParseStatus(t *testing.T) {
	for _, test := range []struct {
		name, status string
		want         model.Process
		uid          int64
	}{
		{"nested pid namespaces", "Name:\tnginx\nUmask:\t0022\nPid:\t1827\nUid:\t0\t33\t0\t0\nNStgid:\t1827\t40\t7\n", model.Process{PID: 1, Name: "nginx", ContainerPID: 7}, 33},
		{"host process", "Name:\tsshd: [listener]\nUid:\t0\t0\t0\t0\nNStgid:\t812\n", model.Process{PID: 1, Name: "sshd: [listener]", ContainerPID: 812}, 0},
		{"old kernel without NStgid", "Name:\ta\nUid:\t5\t5\t5\t5\n", model.Process{PID: 1, Name: "a"}, 5},
		{"escapes", "Name:\ta\\\\b\\n\\\\n\n", model.Process{PID: 1, Name: "a\\b\n\\n"}, -1},
		{"damaged", "Name\nUid:\tx y z w\nNStgid:\t\nNStgid:\tq\nUid:\t1\n", model.Process{PID: 1}, -1},
		{"empty", "", model.Process{PID: 1}, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := model.Process{PID: 1}
			parseStatus(&got, test.status)
			uid := int64(-1)
			if got.UID != nil {
				uid = int64(*got.UID)
			}
			got.UID = nil
			if got != test.want || uid != test.uid {
				t.Errorf("got %+v uid %d, want %+v uid %d", got, uid, test.want, test.uid)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Name:\tnginx\nUid:\t0\t33\t0\t0\nNStgid:\t1827\t40\t7\n")
	f.Fuzz(func(t *testing.T, status string) {
		var p model.Process
		parseStatus(&p, status)
		if !strings.Contains(status, "Name:") && p.Name != "" || len(p.Name) > len(status) {
			t.Errorf("name %q from nowhere", p.Name)
		}
	})
}
