package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"portwatcher/internal/server/api"
)

// A streamReader reads the event stream as fast as it can. It looks at ids
// alone, to leave the processor to portwatcher.
type streamReader struct {
	response *http.Response
	lines    *bufio.Reader
	sample   bool // keep what comes
	kept     arrivals

	last, missed, repeated atomic.Uint64 // last is an id
	at                     atomic.Int64  // when the last event came, in nanoseconds since 1970
	ended                  atomic.Bool
}

// openReader returns once the stream has begun. It ends with ctx.
func openReader(ctx context.Context, address string, sample bool) (*streamReader, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+api.PathEvents, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", api.MediaTypeStream)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	r := &streamReader{response: response, lines: bufio.NewReaderSize(response.Body, 64<<10), sample: sample}
	if err := r.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("a reader of the stream: %s: %w", response.Status, err), response.Body.Close())
	}
	return r, nil
}

// begin reads the greeting, which tells the id after which the stream starts.
func (r *streamReader) begin() error {
	for {
		line, err := r.lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		data, found := bytes.CutPrefix(line, []byte("data: "))
		if !found {
			continue
		}
		var hello api.Hello
		if err := json.Unmarshal(data, &hello); err != nil {
			return err
		}
		r.last.Store(hello.LastID)
		return nil
	}
}

// read reads until the stream ends.
func (r *streamReader) read() {
	defer r.ended.Store(true)
	defer r.response.Body.Close()
	for {
		line, err := r.lines.ReadSlice('\n')
		if err != nil {
			return // what is missing is counted
		}
		if r.sample {
			if data, found := bytes.CutPrefix(line, []byte("data: {")); found {
				r.kept.add(line[len(line)-len(data)-1:], time.Now())
			}
		}
		digits, found := bytes.CutPrefix(line, []byte("id: "))
		if !found {
			continue
		}
		id, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 10, 64)
		last := r.last.Load()
		switch {
		case err != nil || id <= last:
			r.repeated.Add(1)
			continue
		case id > last+1:
			r.missed.Add(id - last - 1)
		}
		r.at.Store(time.Now().UnixNano())
		r.last.Store(id)
	}
}

// A stuckReader asks for the stream and takes nothing of it after its start.
type stuckReader struct{ net.Conn }

func openStuck(ctx context.Context, address string) (*stuckReader, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", api.PathEvents, address, api.MediaTypeStream)
	status := make([]byte, len("HTTP/1.1 200"))
	err = conn.SetDeadline(time.Now().Add(streamPatience))
	if err == nil {
		_, err = conn.Write([]byte(request))
	}
	if err == nil {
		_, err = conn.Read(status)
	}
	if err == nil && !strings.HasSuffix(string(status), " 200") {
		err = fmt.Errorf("the answer begins with %q", status)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("a slow reader of the stream: %w", err), conn.Close())
	}
	return &stuckReader{conn}, nil
}

// eventID returns the id of an event as JSON.
func eventID(line []byte) (uint64, error) {
	var event struct{ ID uint64 }
	if err := json.Unmarshal(line, &event); err != nil {
		return 0, fmt.Errorf("event %q: %w", line, err)
	}
	return event.ID, nil
}
