package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// User space maps a ring buffer as the consumer's position, a writable page; the
// producer's position, a page; and the data, twice in a row, so that a record can
// continue past the end. Each record has a header of 8 bytes and fills a multiple of 8.
// Source: kernel/bpf/ringbuf.c, include/uapi/linux/bpf.h.
const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

// windowBytes is how much of the data is mapped at a time. The library maps all of it,
// twice, and mapped pages count as this process's resident memory even if never read.
const windowBytes = 256 << 10

// ringReader reads a ring buffer.
type ringReader struct {
	fd, epoll, wake int // of the map; of the wait; of an eventfd that ends the wait
	size            uintptr
	consumer        []byte
	producer        []byte

	// flush is twice the producer's position up to which to read, and one; or 0.
	flush  atomic.Uint64
	closed atomic.Bool

	mu       sync.Mutex // held by read as long as it runs, since close unmaps
	position uintptr    // the consumer's
	window   []byte
	windowAt uintptr // its place in the data
}

// openRing maps the ring buffer of a map of size bytes. fd stays the caller's.
func openRing(fd int, size uint32) (*ringReader, error) {
	r := &ringReader{fd: fd, epoll: -1, wake: -1, size: uintptr(size)}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *ringReader) open() (err error) {
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(r.fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the consumer's position: %w", err)
	}
	if r.producer, err = unix.Mmap(r.fd, int64(page), page, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the producer's position: %w", err)
	}
	if err := r.slide(0); err != nil {
		return err
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	for _, fd := range []int{r.fd, r.wake} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return nil
}

// slide maps the window around a place in the data, and a page more for a record that
// begins at its end.
func (r *ringReader) slide(place uintptr) error {
	if r.window != nil {
		if err := unix.Munmap(r.window); err != nil {
			return fmt.Errorf("unmap %d bytes of data: %w", len(r.window), err)
		}
		r.window = nil
	}
	page := os.Getpagesize()
	length := min(windowBytes, r.size)
	at := place &^ (length - 1)
	window, err := unix.Mmap(r.fd, int64(2*page)+int64(at), int(length)+page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d bytes of data at %d: %w", length, at, err)
	}
	r.window, r.windowAt = window, at
	return nil
}

// read waits for a record and returns it in buffer, which may grow. After close it
// returns os.ErrClosed.
func (r *ringReader) read(buffer []byte) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed.Load() {
			return buffer, os.ErrClosed
		}
		if asked := r.flush.Load(); asked != 0 && int(r.position-uintptr(asked>>1)) >= 0 {
			if !r.flush.CompareAndSwap(asked, 0) {
				continue
			}
			return buffer, ErrFlushed
		}
		if atomic.LoadUintptr(position(r.producer)) != r.position {
			record, discarded, err := r.next()
			switch {
			case err != nil:
				return buffer, err
			case discarded:
				continue
			case record != nil:
				buffer = append(buffer[:0], record...)
				r.pass(len(record))
				return buffer, nil
			}
			// It is being written: epoll returns at once, or the writer wakes it.
		}
		if err := r.wait(); err != nil {
			return buffer, err
		}
	}
}

// more reports whether the kernel has begun a record that read has not returned. It
// belongs to the goroutine that calls read.
func (r *ringReader) more() bool {
	return !r.closed.Load() && atomic.LoadUintptr(position(r.producer)) != r.position
}

// next returns the record at the position, in the ring's own memory, nil while it
// is being written. It skips a record that its writer discarded.
func (r *ringReader) next() (record []byte, discarded bool, err error) {
	place := r.position & (r.size - 1)
	if place < r.windowAt || place >= r.windowAt+min(windowBytes, r.size) {
		if err := r.slide(place); err != nil {
			return nil, false, err
		}
	}
	data := r.window[place-r.windowAt:]
	// The kernel writes the length last.
	header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[0])))
	length := int(header &^ (ringBusy | ringDiscard))
	switch {
	case header&ringBusy != 0:
		return nil, false, nil
	case ringHeader+length > len(data):
		r.position = atomic.LoadUintptr(position(r.producer)) // the next record cannot be found
		atomic.StoreUintptr(position(r.consumer), r.position)
		return nil, false, malformed("%d bytes in the ring buffer, of which %d are mapped", length, len(data))
	case header&ringDiscard != 0:
		r.pass(length)
		return nil, true, nil
	}
	return data[ringHeader : ringHeader+length], false, nil
}

// pass releases the room of a record.
func (r *ringReader) pass(length int) {
	r.position += uintptr(ringHeader+length+7) &^ 7
	atomic.StoreUintptr(position(r.consumer), r.position)
}

// wait returns when there may be a record or wakeUp was called.
func (r *ringReader) wait() error {
	var events [2]unix.EpollEvent
	n, err := unix.EpollWait(r.epoll, events[:], -1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for i := range max(n, 0) {
		if events[i].Fd != int32(r.wake) {
			continue
		}
		var number [8]byte
		if _, err := unix.Read(r.wake, number[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("read eventfd: %w", err)
		}
	}
	return nil
}

func (r *ringReader) wakeUp() error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(r.wake, one); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("write eventfd: %w", err)
	}
	return nil
}

// flushTo makes read return ErrFlushed after every record of before this call.
func (r *ringReader) flushTo() error {
	r.flush.Store(uint64(atomic.LoadUintptr(position(r.producer)))<<1 | 1)
	return r.wakeUp()
}

// close ends read and releases everything.
func (r *ringReader) close() error {
	r.closed.Store(true)
	var errs []error
	if r.wake >= 0 {
		errs = append(errs, r.wakeUp())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range []*int{&r.epoll, &r.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	for _, mapping := range []*[]byte{&r.consumer, &r.producer, &r.window} {
		if *mapping != nil {
			errs = append(errs, unix.Munmap(*mapping))
			*mapping = nil
		}
	}
	return errors.Join(errs...)
}

// position is the unsigned long at the start of a page.
func position(page []byte) *uintptr { return (*uintptr)(unsafe.Pointer(&page[0])) }
