package sockdiag

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// answer is what the fake kernel sends to one request: a part of the dump for
// each list of cookies, and its end.
type answer struct {
	parts [][]uint64
	// marked is the index of the part that has NLM_F_DUMP_INTR, or len(parts) for
	// the end; -1: none.
	marked int
}

// fakeKernel is a connection whose other end gives the answers in turn, the
// last one again and again. end closes the connection and returns the requests.
func fakeKernel(t *testing.T, answers ...answer) (c *Conn, end func() []header) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, kernel := os.NewFile(uintptr(pair[0]), "connection"), os.NewFile(uintptr(pair[1]), "fake kernel")
	if c, err = newConn(ours, Options{}); err != nil {
		t.Fatal(err)
	}
	var requests []header
	ended := make(chan error, 1)
	go func() { ended <- answerAll(kernel, answers, &requests) }()
	end = sync.OnceValue(func() []header {
		if err := errors.Join(c.Close(), <-ended, kernel.Close()); err != nil {
			t.Error(err)
		}
		return requests
	})
	t.Cleanup(func() { end() })
	return c, end
}

func answerAll(kernel *os.File, answers []answer, requests *[]header) error {
	buffer := make([]byte, bufferSize)
	for {
		n, err := kernel.Read(buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		request, _, _, err := nextMessage(buffer[:n])
		if err != nil {
			return err
		}
		a := answers[min(len(*requests), len(answers)-1)]
		*requests = append(*requests, request)
		for i, part := range append(slices.Clone(a.parts), nil) {
			if _, err := kernel.Write(datagram(part, request.sequence, i == len(a.parts), i == a.marked)); err != nil {
				return err
			}
		}
	}
}

// datagram is a part of a dump, or its end.
func datagram(cookies []uint64, sequence uint32, end, marked bool) (b []byte) {
	message := func(kind uint16, payload []byte) {
		flags := uint16(unix.NLM_F_MULTI)
		if marked {
			flags |= unix.NLM_F_DUMP_INTR
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(payload)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, flags)
		b = binary.NativeEndian.AppendUint32(b, sequence)
		b = append(binary.NativeEndian.AppendUint32(b, 0), payload...)
	}
	for _, cookie := range cookies {
		socket := make([]byte, messageLength)
		socket[0], socket[1] = unix.AF_INET, stateListen
		binary.BigEndian.PutUint16(socket[offsetSourcePort:], uint16(cookie))
		binary.NativeEndian.PutUint32(socket[offsetCookie:], uint32(cookie))
		message(unix.SOCK_DIAG_BY_FAMILY, socket)
	}
	if end {
		message(unix.NLMSG_DONE, make([]byte, 4))
	}
	return b
}

func cookiesOf(sockets []model.Socket) (cookies []uint64) {
	for _, s := range sockets {
		cookies = append(cookies, s.Cookie)
	}
	return cookies
}

// What an interrupted dump showed may be there twice, or not at all: only the
// repeat counts. What other tables showed before stays.
func TestInterruptedDumpIsRepeated(t *testing.T) {
	first, second := [][]uint64{{11, 12}, {13}}, [][]uint64{{21}, {22}}
	for _, test := range []struct {
		name     string
		answers  []answer
		requests int
	}{
		{"not interrupted", []answer{{second, -1}}, 1},
		{"in the first part", []answer{{first, 0}, {second, -1}}, 2},
		{"in the last part", []answer{{first, 1}, {second, -1}}, 2},
		{"at the end", []answer{{first, 2}, {second, -1}}, 2},
		{"again and again", append(slices.Repeat([]answer{{first, 0}}, attempts-1), answer{second, -1}), attempts},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, end := fakeKernel(t, test.answers...)
			sockets, err := c.dumpTable([]model.Socket{{Cookie: 1}}, &c.tables[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, want := cookiesOf(sockets), []uint64{1, 21, 22}; !slices.Equal(got, want) {
				t.Errorf("sockets %v, want %v", got, want)
			}
			requests := end()
			if len(requests) != test.requests {
				t.Fatalf("%d requests, want %d", len(requests), test.requests)
			}
			for i, r := range requests {
				if r.flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP || i > 0 && r.sequence == requests[i-1].sequence {
					t.Errorf("request %d: %+v; want a dump with a sequence of its own", i, r)
				}
			}
		})
	}
}

func TestDumpThatIsAlwaysInterrupted(t *testing.T) {
	c, end := fakeKernel(t, answer{[][]uint64{{11}}, 0})
	if _, err := c.Dump(nil); !errors.Is(err, ErrInterrupted) {
		t.Errorf("error %v, want ErrInterrupted", err)
	}
	if got := len(end()); got != attempts {
		t.Errorf("%d requests, want %d", got, attempts)
	}
}
