// Package output writes events and lists of open endpoints, as text for people and as
// JSON.
//
// What comes from inside a container (names of processes) is not trusted: text for
// people never carries control characters of it to the terminal, and JSON has them escaped.
package output

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"portwatcher/internal/model"
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Format is how events are written.
type Format string

const (
	// Text is a line for people.
	Text Format = "text"
	// JSON is one object a line.
	JSON Format = "json"
)

// AppendEvent appends one event as one line.
func AppendEvent(dst []byte, format Format, e *model.Event) []byte {
	if format == JSON {
		dst = AppendJSON(dst, e)
	} else {
		dst = append(dst, eventText(e)...)
	}
	return append(dst, '\n')
}

// eventText describes an event in one line, without the line's end.
func eventText(e *model.Event) string {
	var b strings.Builder
	b.WriteString(e.Time.UTC().Format(timeLayout) + " ")
	if e.Container != nil || e.Type != model.Gap {
		b.WriteString(Printable(e.ContainerName()) + ": ")
	}
	place := fmt.Sprintf("%d/%s on %s", e.Port, e.Protocol, AddressText(&e.Listener))
	switch e.Type {
	case model.Opened:
		b.WriteString("New port opened: " + place + processesText(" (pids: ", e.Processes))
		b.WriteString(exposureText(&e.Listener))
	case model.Closed:
		b.WriteString("Port closed: " + place + processesText(" (last pids: ", e.Processes))
		if e.OpenSeconds != nil {
			b.WriteString(" after " + DurationText(*e.OpenSeconds))
		}
	case model.Changed:
		if e.Change == model.ChangeForward {
			b.WriteString("Port changed forward: " + place + " is now" + ForwardText(e.Forward) + ", and was" + ForwardText(e.PreviousForward))
			break
		}
		if e.Change == model.ChangeExposure {
			b.WriteString("Port changed exposure: " + place + " is now " + ReachText(e.Exposure, e.Published) +
				", and was " + ReachText(e.PreviousExposure, e.PreviousPublished))
			break
		}
		b.WriteString("Port changed owner: " + place + processesText(" (pids: ", e.Processes))
		b.WriteString(exposureText(&e.Listener))
	case model.Bursts:
		b.WriteString("Burst: " + BurstText(e) + processesText(" (pids: ", e.Processes))
	case model.Gap:
		b.WriteString("Gap: " + GapText(e))
	case model.Drifted:
		b.WriteString(DriftEventText(e))
	default:
		b.WriteString(string(e.Type) + ": " + place)
	}
	if e.Transient {
		b.WriteString(" [transient]")
	}
	if e.Drift != "" && e.Type != model.Drifted {
		b.WriteString(" [drift: " + Printable(string(e.Drift)) + "]")
	}
	return b.String()
}

// AddressText returns the address of a listener: "::" where that takes IPv4 too or
// may do so, else ":: (IPv6 only)"; with the namespace where that is not the container's
// own, "0.0.0.0 in net:[4026532281]".
func AddressText(l *model.Listener) string {
	text := Printable(l.Address.String()) // a zone is free text
	if l.IPv6Only {
		text += " (IPv6 only)"
	}
	if l.Namespace != "" {
		text += " in " + Printable(l.Namespace)
	}
	return text
}

func processesText(before string, processes []model.Process) string {
	if len(processes) == 0 {
		return ""
	}
	return before + ProcessList(processes, len(processes)) + ")"
}

// ProcessList names at most so many processes, "1827 nginx, 1830 MainThread (python3.11)",
// and counts the others.
func ProcessList(processes []model.Process, most int) string {
	var b strings.Builder
	for i, p := range processes {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(processes)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(p.PID))
		if p.Name != "" {
			b.WriteString(" " + Printable(p.Name))
		}
		if program := programOf(&p); program != "" {
			b.WriteString(" (" + Printable(program) + ")")
		}
	}
	return b.String()
}

// programOf returns the file name of a process's executable, empty where the name of the
// process shows it already.
func programOf(p *model.Process) string {
	program := p.Program()
	if program[:min(len(program), model.MaxProcessName)] == p.Name {
		return ""
	}
	return program
}

func exposureText(l *model.Listener) string {
	switch l.Exposure {
	case model.Published:
		return " published at " + strings.Join(l.Published, ", ")
	case model.Loopback:
		return " loopback only" + ForwardSuffix(l.Forward)
	case model.Lan:
		return " reachable from other machines"
	case model.Host:
		return " on the host's network" + ForwardSuffix(l.Forward)
	}
	return ForwardSuffix(l.Forward)
}

// ForwardText describes for which container a port of the host is published: " for web:80",
// " published for web:80 too", " published for no container".
func ForwardText(f *model.Forward) string {
	switch {
	case f == nil:
		return " published for no container"
	case f.Engine:
		return fmt.Sprintf(" for %s:%d", Printable(f.Container.Name), f.Port)
	}
	return fmt.Sprintf(" published for %s:%d too", Printable(f.Container.Name), f.Port)
}

// ForwardSuffix is ForwardText, empty where there is no container.
func ForwardSuffix(f *model.Forward) string {
	if f == nil {
		return ""
	}
	return ForwardText(f)
}

// ReachText names who can reach an endpoint: "network", "published at 0.0.0.0:8080",
// "not known".
func ReachText(e model.Exposure, published []string) string {
	text := string(e)
	if text == "" {
		text = "not known"
	}
	if len(published) > 0 {
		text += " at " + strings.Join(published, ", ")
	}
	return Printable(text)
}

// DurationText writes a duration for people: "12.3s", "4m10s", "26h3m".
func DurationText(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 50*time.Microsecond:
		return "less than 0.1ms"
	case d < time.Second:
		return strconv.FormatFloat(seconds*1000, 'f', 1, 64) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + "s"
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// Printable replaces the characters that could steer a terminal or break the line.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}
