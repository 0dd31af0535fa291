package procfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"portwatcher/internal/model"
)

// States of a socket, include/net/tcp_states.h. UDP uses the same numbers.
const (
	stateClose  = 7 // UDP: not connected
	stateListen = 10
)

// hostIsBigEndian is the byte order of the running machine.
var hostIsBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// table is one of the four files.
type table struct {
	name     string
	protocol model.Protocol
	ipv6     bool
}

var tables = [...]table{
	{"tcp", model.TCP, false}, {"tcp6", model.TCP, true},
	{"udp", model.UDP, false}, {"udp6", model.UDP, true},
}

// parser reads the lines of one table.
type parser struct {
	table
	// bigEndian is the byte order of the host that wrote the table: the kernel prints
	// each word of an address, which is in network byte order, as a number of the host.
	bigEndian bool
	ephemeral Range
	line      int // the last line read
}

// parse appends to dst the sockets in the complete lines of text and returns what
// follows the last of them. The error describes what is wrong with line p.line.
func (p *parser) parse(dst []model.Socket, text []byte) ([]model.Socket, []byte, error) {
	for {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return dst, text, nil
		}
		line := text[:end]
		text = text[end+1:]
		p.line++
		if p.line == 1 {
			if first, _ := field(line); string(first) != "sl" {
				return dst, nil, fmt.Errorf("%q, want the names of the columns, sl first", clip(line))
			}
			continue
		}
		socket, found, err := p.socket(line)
		if err != nil {
			return dst, nil, fmt.Errorf("%w in %q", err, clip(line))
		}
		if found {
			dst = append(dst, socket)
		}
	}
}

// socket decodes one line. found is false for a socket that is neither a listener nor
// an unconnected UDP socket with a port. It decodes no more of a connection than its
// state. The columns: sl, local_address, rem_address, st, tx_queue:rx_queue,
// tr:tm->when, retrnsmt, uid, timeout, inode.
func (p *parser) socket(line []byte) (s model.Socket, found bool, err error) {
	slot, rest := field(line)
	if len(slot) < 2 || slot[len(slot)-1] != ':' {
		return s, false, fmt.Errorf("column sl is %q, want a number and a colon", clip(slot))
	}
	local, rest := field(rest)
	_, rest = field(rest)
	column, rest := field(rest)
	var state [1]byte
	if len(column) != 2 {
		err = hex.ErrLength
	} else {
		_, err = hex.Decode(state[:], column)
	}
	if err != nil {
		return s, false, fmt.Errorf("column st is %q, want 2 hexadecimal digits", clip(column))
	}
	if p.protocol == model.TCP && state[0] != stateListen || p.protocol == model.UDP && state[0] != stateClose {
		return s, false, nil
	}
	if s.Address, s.Port, err = p.endpoint(local); err != nil || p.protocol == model.UDP && s.Port == 0 {
		return s, false, err
	}
	for range 3 {
		_, rest = field(rest)
	}
	column, rest = field(rest)
	var ok bool
	if s.UID, ok = decimal(column); !ok {
		return s, false, fmt.Errorf("column uid is %q, want a number below 1<<32", clip(column))
	}
	_, rest = field(rest)
	column, _ = field(rest)
	if s.Inode, ok = decimal(column); !ok {
		return s, false, fmt.Errorf("column inode is %q, want a number below 1<<32", clip(column))
	}
	s.Protocol = p.protocol
	s.AutoBound = p.protocol == model.UDP && p.ephemeral.Holds(s.Port)
	if s.Cookie = inodeCookie(s.Inode); s.Inode == 0 {
		s.Cookie = addressCookie(&s)
	}
	return s, true, nil
}

// endpoint decodes address and port: 8 or 32 hexadecimal digits, a colon, 4 more.
func (p *parser) endpoint(column []byte) (netip.Addr, uint16, error) {
	digits := 8
	if p.ipv6 {
		digits = 32
	}
	if len(column) != digits+5 || column[digits] != ':' {
		return netip.Addr{}, 0, fmt.Errorf("column local_address is %q, want %d hexadecimal digits, a colon and 4 more", clip(column), digits)
	}
	var raw [16]byte
	var port [2]byte
	if _, err := hex.Decode(raw[:], column[:digits]); err != nil {
		return netip.Addr{}, 0, fmt.Errorf("column local_address is %q: %w", clip(column), err)
	}
	if _, err := hex.Decode(port[:], column[digits+1:]); err != nil {
		return netip.Addr{}, 0, fmt.Errorf("the port in column local_address is %q: %w", clip(column), err)
	}
	if !p.bigEndian {
		for at := 0; at < len(raw); at += 4 {
			slices.Reverse(raw[at : at+4])
		}
	}
	number := binary.BigEndian.Uint16(port[:])
	if p.ipv6 {
		return netip.AddrFrom16(raw).Unmap(), number, nil
	}
	return netip.AddrFrom4([4]byte(raw[:4])), number, nil
}

// field returns the next column, which is empty at the end, and what follows it.
func field(line []byte) (column, rest []byte) {
	line = bytes.TrimLeft(line, " ")
	if end := bytes.IndexByte(line, ' '); end >= 0 {
		return line[:end], line[end:]
	}
	return line, nil
}

func decimal(text []byte) (uint32, bool) {
	value, err := strconv.ParseUint(string(text), 10, 32)
	return uint32(value), err == nil
}

// clip keeps an error to one line of reasonable length.
func clip(text []byte) []byte { return text[:min(len(text), 80)] }
