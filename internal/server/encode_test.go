package server

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
	"portwatcher/internal/server/api"
)

// plainly encodes as appendPorts has to.
func plainly(t testing.TB, value any) string {
	t.Helper()
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return string(output.EscapeMarks(text.Bytes()))
}

// fill sets every field to something, so that none is left out: a field that is
// added to [model.Open] has to be added to output.AppendOpen.
func fill(v reflect.Value) {
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(testTime))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("fe80::1%eth0")))
		return
	case reflect.TypeFor[model.Protocol]():
		v.Set(reflect.ValueOf(model.UDP))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.String:
		v.SetString("a text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Map: // labels are no part of the JSON form
	case reflect.Int:
		v.SetInt(7)
	default:
		v.SetUint(7)
	}
}

func TestEveryFieldIsEncoded(t *testing.T) {
	var o model.Open
	fill(reflect.ValueOf(&o).Elem())
	for _, o := range []model.Open{o, {}, {Listener: model.Listener{Container: web}}} {
		if got, want := string(output.AppendOpen(nil, &o))+"\n", plainly(t, o); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func FuzzEncoding(f *testing.F) {
	f.Add("web", "nginx", "0.0.0.0", uint16(80), int64(1), true)
	f.Add("\xff\x00\"\\\n\r\t\b\f\u2028<&>", "ü\x7f\U0001F600", "::ffff:1.2.3.4", uint16(0), int64(0), false)
	f.Add("", "", "fe80::1%\"x", uint16(65535), int64(1e18), true)
	f.Fuzz(func(t *testing.T, name, executable, address string, number uint16, nanoseconds int64, only bool) {
		uid := uint32(number)
		ip, _ := netip.ParseAddr(address)
		o := model.Open{Time: time.Unix(0, nanoseconds).UTC(), OpenedAt: time.Unix(nanoseconds%1e9, 0).UTC(), Listener: model.Listener{
			Host: name, Container: &model.ContainerRef{ID: name, Name: executable, Image: name, Project: executable, Service: name},
			Protocol: model.TCP, Address: ip, Port: number, IPv6Only: only,
			Processes: []model.Process{{PID: int(number), Name: name, Executable: executable, UID: &uid}, {ContainerPID: 1}},
			Exposure:  model.Exposure(name), Published: []string{name, executable}, Source: model.Source(executable),
		}}
		if got, want := string(output.AppendOpen(nil, &o))+"\n", plainly(t, o); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestTheListIsMadeOnce asks for the list of views that share what is open, and of
// others.
func TestTheListIsMadeOnce(t *testing.T) {
	view := &model.View{Version: 1, Open: manyPorts(30)}
	var list portList
	first := list.of(view)
	var decoded api.Ports
	if err := json.Unmarshal(first.plain.content, &decoded); err != nil || plainly(t, decoded) != string(first.plain.content) || len(decoded.Ports) != 30 {
		t.Errorf("%d ports, %v", len(decoded.Ports), err)
	}
	if list.of(&model.View{Version: 2, Open: view.Open}) != first {
		t.Error("it is made again for another view of the same")
	}
	if list.of(&model.View{Version: 3, Open: view.Open[:29]}) == first || list.of(&model.View{Version: 4, Open: manyPorts(30)}) == first {
		t.Error("it is not made again for another list")
	}
	list.made = list.made.Add(-2 * listAge)
	if list.of(&model.View{Version: 4, Open: view.Open}) == first {
		t.Error("it is not made again after its time")
	}
}
