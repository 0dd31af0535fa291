package procfs

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"portwatcher/internal/model"
)

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func newParser(name string, bigEndian bool) *parser {
	for _, t := range tables {
		if t.name == name {
			return &parser{table: t, bigEndian: bigEndian, ephemeral: Range{32768, 60999}}
		}
	}
	panic("no table " + name)
}

func TestParseLine(t *testing.T) {
	const tail = " 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0"
	const zero4, zero6 = "00000000", "00000000000000000000000000000000"
	want := func(protocol model.Protocol, address string, number uint16) model.Socket {
		return model.Socket{
			Cookie: inodeCookie(4242), Protocol: protocol, Address: netip.MustParseAddr(address), Port: number,
			UID: 1000, Inode: 4242,
		}
	}
	auto := want(model.UDP, "0.0.0.0", 32768)
	auto.AutoBound = true
	for _, test := range []struct {
		name, table string
		bigEndian   bool
		line        string
		want        *model.Socket
	}{
		{"listener", "tcp", false, "0100007F:1F90 " + zero4 + ":0000 0A", new(want(model.TCP, "127.0.0.1", 8080))},
		{"listener, big endian", "tcp", true, "7F000001:1F90 " + zero4 + ":0000 0A", new(want(model.TCP, "127.0.0.1", 8080))},
		{"lower-case digits", "tcp", false, "0100007f:1f90 " + zero4 + ":0000 0a", new(want(model.TCP, "127.0.0.1", 8080))},
		{"a listener in the ephemeral range", "tcp", false, zero4 + ":8000 " + zero4 + ":0000 0A", new(want(model.TCP, "0.0.0.0", 32768))},
		{"IPv6", "tcp6", false, "B80D01200000000067452301EFCDAB89:FFFF " + zero6 + ":0000 0A",
			new(want(model.TCP, "2001:db8::123:4567:89ab:cdef", 65535))},
		{"IPv6, big endian", "tcp6", true, "20010DB8000000000123456789ABCDEF:FFFF " + zero6 + ":0000 0A",
			new(want(model.TCP, "2001:db8::123:4567:89ab:cdef", 65535))},
		{"IPv4-mapped", "udp6", false, "0000000000000000FFFF00000100007F:0001 " + zero6 + ":0000 07", new(want(model.UDP, "127.0.0.1", 1))},
		{"UDP", "udp", false, zero4 + ":0035 " + zero4 + ":0000 07", new(want(model.UDP, "0.0.0.0", 53))},
		{"UDP in the ephemeral range", "udp", false, zero4 + ":8000 " + zero4 + ":0000 07", &auto},
		{"connected UDP", "udp", false, "0100007F:8000 0100007F:0035 01", nil},
		{"UDP without port", "udp", false, zero4 + ":0000 " + zero4 + ":0000 07", nil},
		{"connection", "tcp", false, "0100007F:1F90 0100007F:A000 01", nil},
		{"closed TCP", "tcp", false, "0100007F:1F90 " + zero4 + ":0000 07", nil},
	} {
		line := "   0: " + test.line + tail + "\n"
		got, rest, err := newParser(test.table, test.bigEndian).parse(nil, []byte(header+line+"  1: "))
		if err != nil || string(rest) != "  1: " {
			t.Errorf("%s: rest %q, error %v", test.name, rest, err)
		}
		switch {
		case test.want == nil && len(got) != 0:
			t.Errorf("%s: got %+v, want nothing", test.name, got)
		case test.want != nil && (len(got) != 1 || got[0] != *test.want):
			t.Errorf("%s: got %+v, want %+v", test.name, got, *test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1"
	if got, _, err := newParser("tcp", false).parse(nil, []byte(header+good+"\n")); err != nil || len(got) != 1 {
		t.Fatalf("the good line: %+v, %v", got, err)
	}
	for name, test := range map[string]struct{ from, to, want string }{
		"another header":     {header, "Proto Recv-Q\n", "want the names of the columns"},
		"empty line":         {good, "", "column sl"},
		"no slot":            {"   0:", "", "column sl"},
		"short address":      {"0100007F:1F90", "00007F:1F90", "column local_address"},
		"IPv6 address":       {"0100007F:1F90", strings.Repeat("0", 32) + ":1F90", "column local_address"},
		"no colon":           {"0100007F:1F90", "0100007F01F90", "column local_address"},
		"address digits":     {"0100007F", "0100007G", "column local_address"},
		"port digits":        {":1F90", ":1F9-", "the port"},
		"state":              {" 0A ", " A ", "column st"},
		"state digits":       {" 0A ", " +A ", "column st"},
		"cut before state":   {good, "   0: 0100007F:1F90", "column st is \"\""},
		"cut before inode":   {"0 4242 1", "0", "column inode"},
		"inode too large":    {"4242", "4294967296", "column inode"},
		"inode negative":     {"4242", "-4242", "column inode"},
		"user id too large":  {"  1000 ", " 99999999999 ", "column uid"},
		"user id not number": {"  1000 ", " root ", "column uid"},
	} {
		text := strings.Replace(header+good+"\n", test.from, test.to, 1)
		got, _, err := newParser("tcp", false).parse(nil, []byte(text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, error %v, want an error with %q", name, got, err, test.want)
		}
	}
}

func TestCookie(t *testing.T) {
	for _, inode := range []uint32{1, 4242, 1<<32 - 1} {
		if s := (model.Socket{Cookie: inodeCookie(inode)}); !s.HasMadeUpCookie() || uint32(s.Cookie) != inode {
			t.Errorf("inodeCookie(%d) = %#x", inode, s.Cookie)
		}
	}
	for _, kernels := range []uint64{0, 1, 1 << 40, 1<<63 - 1, 1<<64 - 1, 1<<64 - 1<<40} {
		if s := (model.Socket{Cookie: kernels}); s.HasMadeUpCookie() {
			t.Errorf("the kernel can give %#x", kernels)
		}
	}
}

// TestNoInode: sockets without an inode are distinguished.
func TestNoInode(t *testing.T) {
	const line = "   0: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 0 1\n"
	text := header + fmt.Sprintf(line, 80) + fmt.Sprintf(line, 81)
	got, _, err := newParser("tcp", false).parse(nil, []byte(text))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	again, _, err := newParser("tcp", false).parse(nil, []byte(text))
	if err != nil || got[0].Cookie == got[1].Cookie || got[0] != again[0] {
		t.Errorf("cookies %#x and %#x, then %#x, %v", got[0].Cookie, got[1].Cookie, again[0].Cookie, err)
	}
	for _, s := range got {
		if s.Cookie>>32 != noInode>>32 {
			t.Errorf("cookie %#x could be an inode's", s.Cookie)
		}
	}
}

// FuzzParse checks that nothing panics, and that it does not matter where the
// text is cut.
func FuzzParse(f *testing.F) {
	f.Add(uint8(0), 120, []byte(header+"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n"))
	f.Add(uint8(3), 7, []byte(header+"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 07 0:0 0:0 0  1000        0 4242 1\n"))
	f.Add(uint8(2), 0, []byte("\n\n"))
	f.Fuzz(func(t *testing.T, which uint8, cut int, text []byte) {
		name := tables[int(which)%len(tables)].name
		whole := newParser(name, false)
		want, rest, wantErr := whole.parse(nil, text)
		for _, s := range want {
			if !s.Address.IsValid() || s.Address.Is4In6() || s.Cookie&model.MadeUpCookie == 0 || (s.Protocol == model.UDP && s.Port == 0) {
				t.Errorf("accepted %+v", s)
			}
		}
		if cut < 0 || cut > len(text) {
			return
		}
		parts := newParser(name, false)
		got, left, err := parts.parse(nil, text[:cut])
		if err == nil {
			got, left, err = parts.parse(got, append(bytes.Clone(left), text[cut:]...))
		}
		if fmt.Sprint(got, left, err, parts.line) != fmt.Sprint(want, rest, wantErr, whole.line) {
			t.Errorf("cut at %d: %v, %q, %v, line %d\nwhole: %v, %q, %v, line %d", cut, got, left, err, parts.line, want, rest, wantErr, whole.line)
		}
	})
}
