package probe

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// sampleCount is the entry of 10.1.2.3:8080, with a different number in each
// field.
func sampleCount() (key, value []byte) {
	key, value = make([]byte, countKeySize), make([]byte, countValueSize)
	e := binary.NativeEndian
	e.PutUint64(key[0:], 13)
	e.PutUint64(key[8:], 12)
	copy(key[16:], []byte{10, 1, 2, 3})
	e.PutUint16(key[32:], 8080)
	key[34], key[35] = 6, unix.AF_INET
	for i, number := range []uint64{100, 99, 3, 1_000, 2_000, 1_900, 11, 14, 1_950, 10} {
		e.PutUint64(value[8*i:], number)
	}
	e.PutUint32(value[80:], 15)
	e.PutUint32(value[84:], 16)
	e.PutUint32(value[88:], 17)
	value[92] = flagAutoBound
	copy(value[96:], "nginx")
	return key, value
}

func wantCount() Count {
	return Count{
		NetnsCookie: 12, Cgroup: 13, TaskCgroup: 14,
		Socket: model.Socket{
			Cookie: 11, Protocol: model.TCP, Address: netip.MustParseAddr("10.1.2.3"), Port: 8080,
			AutoBound: true, Cgroup: 13, Inode: 15, UID: 16,
		},
		PID: 17, Name: "nginx", SameProcess: true,
		Opened: 100, Closed: 99, Missed: 3,
		First: 1_000, Last: 2_000, LastOpened: 1_900, LastClosed: 1_950, ClosedCookie: 10,
	}
}

func TestParseCount(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(key, value []byte)
		want func(*Count)
	}{
		{"an endpoint", func(_, _ []byte) {}, func(*Count) {}},
		{"IPv6 only", func(key, value []byte) { key[35] = unix.AF_INET6; clear(key[16:32]); value[92] = flagIPv6Only },
			func(c *Count) {
				c.Socket.Address, c.Socket.IPv6Only, c.Socket.AutoBound = netip.IPv6Unspecified(), true, false
			}},
		{"several processes", func(_, value []byte) { value[93] = 1 }, func(c *Count) { c.SameProcess = false }},
		{"closings alone", func(_, value []byte) { clear(value[0:8]) },
			func(c *Count) { c.Opened, c.SameProcess, c.Name = 0, false, "" }},
		{"the rest", func(key, _ []byte) { clear(key[16:34]); key[35] = 0 },
			func(c *Count) { c.Socket.Address, c.Socket.Port, c.Rest = netip.Addr{}, 0, true }},
	} {
		key, value := sampleCount()
		test.edit(key, value)
		want := wantCount()
		test.want(&want)
		var got Count
		if err := parseCount(key, value, &got, names{}); err != nil || got != want {
			t.Errorf("%s: error %v\ngot  %+v\nwant %+v", test.name, err, got, want)
		}
	}
}

func TestParseCountRefuses(t *testing.T) {
	for name, edit := range map[string]func(key, value []byte) ([]byte, []byte){
		"no key":      func(_, value []byte) ([]byte, []byte) { return nil, value },
		"long key":    func(key, value []byte) ([]byte, []byte) { return append(key, 0), value },
		"short value": func(key, value []byte) ([]byte, []byte) { return key, value[:countValueSize-1] },
		"protocol":    func(key, value []byte) ([]byte, []byte) { key[34] = 132; return key, value },
		"family":      func(key, value []byte) ([]byte, []byte) { key[35] = 1; return key, value },
		"flags":       func(key, value []byte) ([]byte, []byte) { value[92] = 8; return key, value },
		"several":     func(key, value []byte) ([]byte, []byte) { value[93] = 2; return key, value },
	} {
		key, value := edit(sampleCount())
		count := Count{PID: 4711}
		var malformed *MalformedError
		if err := parseCount(key, value, &count, names{}); !errors.As(err, &malformed) {
			t.Errorf("%s: error %v, want a *MalformedError", name, err)
		}
		if (count != Count{PID: 4711}) {
			t.Errorf("%s: the count was changed to %+v", name, count)
		}
	}
}

func FuzzParseCount(f *testing.F) {
	key, value := sampleCount()
	f.Add(key, value)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var count Count
		if err := parseCount(key, value, &count, names{}); err != nil {
			if (count != Count{}) {
				t.Errorf("an error, yet the count is %+v", count)
			}
			return
		}
		if count.Rest == count.Socket.Address.IsValid() || count.Socket.Address.Is4In6() {
			t.Errorf("accepted %+v", count)
		}
	})
}
