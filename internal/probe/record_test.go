package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// sampleRecord is an open of 10.1.2.3:8080, with a different number in each
// field.
func sampleRecord() []byte {
	raw := make([]byte, recordSize)
	e := binary.NativeEndian
	e.PutUint64(raw[0:], 1_000_000_007)
	e.PutUint64(raw[8:], 11)
	e.PutUint64(raw[16:], 12)
	e.PutUint64(raw[24:], 13)
	e.PutUint64(raw[32:], 14)
	e.PutUint32(raw[40:], 15)
	e.PutUint32(raw[44:], 16)
	e.PutUint32(raw[48:], 17)
	e.PutUint16(raw[52:], 8080)
	raw[54], raw[55], raw[56], raw[57] = 1, 6, unix.AF_INET, flagAutoBound
	copy(raw[64:], []byte{10, 1, 2, 3})
	copy(raw[80:], "nginx")
	return raw
}

func TestParseRecord(t *testing.T) {
	var got Event
	if err := parseRecord(sampleRecord(), &got, names{}); err != nil {
		t.Fatal(err)
	}
	want := Event{
		Kind: Opened, Time: 1_000_000_007, NetnsCookie: 12, TaskCgroup: 14, PID: 17, Name: "nginx",
		Socket: model.Socket{
			Cookie: 11, Protocol: model.TCP, Address: netip.MustParseAddr("10.1.2.3"), Port: 8080,
			AutoBound: true, Cgroup: 13, Inode: 15, UID: 16,
		},
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseRecordVariants(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:192.0.2.1").As16()
	for _, test := range []struct {
		name  string
		edit  func([]byte)
		check func(Event) bool
	}{
		{"IPv6", func(b []byte) { b[56] = unix.AF_INET6; b[57] = flagIPv6Only; clear(b[64:80]) },
			func(e Event) bool { return e.Socket.Address == netip.IPv6Unspecified() && e.Socket.IPv6Only }},
		{"IPv4-mapped", func(b []byte) { b[56] = unix.AF_INET6; copy(b[64:], mapped[:]) },
			func(e Event) bool { return e.Socket.Address == netip.MustParseAddr("192.0.2.1") }},
		{"UDP about to connect", func(b []byte) { b[54] = 2; b[55] = 17; b[57] = flagConnected },
			func(e Event) bool {
				return e.Kind == Closed && e.Socket.Protocol == model.UDP && e.Connected && e.Name == ""
			}},
		{"name of full length", func(b []byte) { copy(b[80:], "0123456789abcdef") },
			func(e Event) bool { return e.Name == "0123456789abcdef" }},
	} {
		raw := sampleRecord()
		test.edit(raw)
		var got Event
		if err := parseRecord(raw, &got, names{}); err != nil || !test.check(got) {
			t.Errorf("%s: got %+v, error %v", test.name, got, err)
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	edit := func(at int, value byte) []byte {
		raw := sampleRecord()
		raw[at] = value
		return raw
	}
	noCookie := sampleRecord()
	clear(noCookie[8:16])
	for name, raw := range map[string][]byte{
		"nothing":   nil,
		"short":     sampleRecord()[:recordSize-1],
		"long":      append(sampleRecord(), 0),
		"kind 0":    edit(54, 0),
		"kind 3":    edit(54, 3),
		"protocol":  edit(55, 132),
		"family":    edit(56, 1),
		"flags":     edit(57, 8),
		"no cookie": noCookie,
	} {
		event := Event{PID: 4711}
		var malformed *MalformedError
		if err := parseRecord(raw, &event, names{}); !errors.As(err, &malformed) {
			t.Errorf("%s: error %v, want a *MalformedError", name, err)
		}
		if (event != Event{PID: 4711}) {
			t.Errorf("%s: the event was changed to %+v", name, event)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := names{}
	for i := range 3 * maxNames {
		var raw [nameSize]byte
		want := fmt.Sprint("process-", i)
		copy(raw[:], want)
		if got := n.get(raw); got != want {
			t.Fatalf("name %d is %q, want %q", i, got, want)
		}
	}
	if len(n) > maxNames {
		t.Errorf("%d names kept, want at most %d", len(n), maxNames)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(sampleRecord())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var event Event
		err := parseRecord(raw, &event, names{})
		if err != nil {
			if (event != Event{}) {
				t.Errorf("an error, yet the event is %+v", event)
			}
			return
		}
		if !event.Socket.Address.IsValid() || event.Socket.Address.Is4In6() || event.Socket.Cookie == 0 {
			t.Errorf("accepted %+v", event)
		}
	})
}
