package procfs

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"

	"portwatcher/internal/model"
)

// TestReadAllocates allows the allocations of opening the folder and its files, and none
// for a line.
func TestReadAllocates(t *testing.T) {
	var sockets []model.Socket
	allocations := testing.AllocsPerRun(100, func() {
		var err error
		if sockets, err = Read(sockets[:0], "testdata/linux-6.18", 1, Range{}); err != nil {
			t.Fatal(err)
		}
	})
	if opens := len(tables) + 1; allocations > float64(6*opens) {
		t.Errorf("%v allocations per read, want at most 6 for each of %d opens", allocations, opens)
	}
}

// BenchmarkParse decodes the largest captured file.
func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/linux-6.18/1/net/tcp")
	if err != nil {
		b.Fatal(err)
	}
	var sockets []model.Socket
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		p := newParser("tcp", false)
		if sockets, _, err = p.parse(sockets[:0], text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads a namespace with 20 listeners and as many connections as
// named, through the kernel.
func BenchmarkRead(b *testing.B) {
	for _, connections := range []int{0, 1000} {
		b.Run(strconv.Itoa(connections), func(b *testing.B) {
			inNamespace(b, func(tid int) {
				var closers []interface{ Close() error }
				defer func() {
					for _, c := range closers {
						_ = c.Close()
					}
				}()
				var last net.Listener
				for range 20 {
					listener, err := net.Listen("tcp4", "127.0.0.1:0")
					if err != nil {
						panic(err)
					}
					closers, last = append(closers, listener), listener
				}
				for range connections {
					client, err := net.DialTCP("tcp", nil, last.Addr().(*net.TCPAddr))
					if err != nil {
						panic(err)
					}
					server, err := last.Accept()
					if err != nil {
						panic(err)
					}
					closers = append(closers, client, server)
				}
				var sockets []model.Socket
				b.ReportAllocs()
				for b.Loop() {
					var err error
					if sockets, err = Read(sockets[:0], "/proc/self/task", tid, Range{}); err != nil || len(sockets) != 20 {
						panic(fmt.Sprint(len(sockets), err))
					}
				}
			})
		})
	}
}
