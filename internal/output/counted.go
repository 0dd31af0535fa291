package output

import (
	"fmt"
	"strings"

	"portwatcher/internal/model"
)

// BurstText describes what a burst event stands for, without its container and
// processes: "31245 ports opened and 31244 closed within 1.0s: 20000/tcp on
// 127.0.0.1".
func BurstText(e *model.Event) string {
	burst := e.Burst
	if burst == nil {
		return "ports opened and closed"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s opened and %d closed", count(burst.Opened, "port", "ports"), burst.Closed)
	if !burst.First.IsZero() && !burst.Last.IsZero() {
		b.WriteString(" within " + DurationText(burst.Last.Sub(burst.First).Seconds()))
	}
	if place := burstPlace(e); place != "" {
		b.WriteString(": " + place)
	}
	return b.String()
}

// burstPlace is what the openings and closings of a burst have in common.
func burstPlace(e *model.Event) string {
	ports, protocol := portsText(e.Burst), ""
	switch {
	case e.Protocol == 0:
	case e.Port != 0:
		protocol = "/" + e.Protocol.String()
	default:
		protocol = ", " + e.Protocol.String()
	}
	if e.Port != 0 {
		ports = fmt.Sprint(e.Port)
	}
	text := strings.TrimPrefix(ports+protocol, ", ")
	if e.Address.IsValid() {
		text += " on " + AddressText(&e.Listener)
	}
	return strings.TrimSpace(text)
}

// portsText describes several ports: "12 ports, 20000 to 20911".
func portsText(b *model.Burst) string {
	listed := len(b.Ports)
	switch {
	case b.PortCount <= 0:
		return ""
	case listed == 0:
		return count(uint64(b.PortCount), "port", "ports") + " or more"
	case b.PortCount == 1:
		return fmt.Sprint(b.Ports[0])
	case b.PortCount <= listed:
		return fmt.Sprintf("%d ports, %d to %d", b.PortCount, b.Ports[0], b.Ports[listed-1])
	}
	return fmt.Sprintf("%d ports or more, among them %d to %d", b.PortCount, b.Ports[0], b.Ports[listed-1])
}

// GapText describes a gap event, without its container: the reason, and what was
// lost as far as that is known.
func GapText(e *model.Event) string {
	text := Printable(e.Reason)
	if e.Lost > 0 {
		text += " (lost " + count(e.Lost, "opening or closing", "openings and closings") + ")"
	}
	return text
}

func count(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
