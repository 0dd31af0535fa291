package expect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// EntryFor returns the lines of YAML to add below expect:, so that a drift of an endpoint is
// none any more; empty where no single entry can do that (missing, uncovered, a burst of
// several ports). Each line ends with a line feed.
func EntryFor(d *model.OpenDrift) string {
	if d.Drift == model.DriftMissing || d.Drift == model.DriftUncovered || d.Port == 0 {
		return ""
	}
	return lines(entryOf(d.Target, &d.Listener))
}

// EntryForEvent is EntryFor for the drift of an event.
func EntryForEvent(e *model.Event) string {
	if e.Drift == "" || e.Container == nil {
		return ""
	}
	return EntryFor(&model.OpenDrift{Drift: e.Drift, Target: e.Container.Target(), Listener: e.Listener})
}

// EntriesFor returns the lines that cover what is open of a target, each port one time.
func EntriesFor(target string, open []model.Open) string {
	var all []*draft
	for i := range open {
		if o := &open[i]; o.Container != nil && o.Container.Target() == target {
			all = merge(all, entryOf(target, &o.Listener))
		}
	}
	slices.SortFunc(all, compareEntries)
	var b strings.Builder
	for _, e := range all {
		b.WriteString(lines(e))
	}
	return b.String()
}

// draft are the values of an entry that is written.
type draft struct {
	target    string
	protocol  model.Protocol
	port      uint16
	exposure  model.Exposure
	inside    bool
	processes []string
	reason    string
	comments  []string
}

func entryOf(target string, l *model.Listener) *draft {
	e := &draft{target: target, protocol: l.Protocol, port: l.Port, exposure: l.Exposure}
	if e.exposure == "" {
		e.exposure = model.Network
		e.comments = append(e.comments, "its exposure is not known; network is assumed")
	}
	e.inside = l.Exposure == model.Published && l.Outside != nil && !*l.Outside
	for i := range l.Processes {
		if word := programOf(&l.Processes[i]); word != "" && !slices.Contains(e.processes, word) {
			e.processes = append(e.processes, word)
		}
	}
	slices.Sort(e.processes)
	return e
}

// programOf returns the word by which an entry names a process; empty where there is none that
// a list of words can have.
func programOf(p *model.Process) string {
	for _, word := range []string{p.Program(), p.Name} {
		if word != "" && len(model.Words(word)) == 1 && model.Words(word)[0] == word && isPlain(word) {
			return word
		}
	}
	return ""
}

// isPlain reports whether a text needs no quotes in YAML, and shows all its characters.
func isPlain(text string) bool {
	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '/'
		if !letter && (i == 0 || !strings.ContainsRune(".-+@", r)) {
			return false
		}
	}
	return text != ""
}

// merge adds an entry, or widens one for the same port.
func merge(all []*draft, e *draft) []*draft {
	for _, known := range all {
		if known.target != e.target || known.protocol != e.protocol || known.port != e.port {
			continue
		}
		known.inside = known.inside && e.inside
		if model.CompareReach(e.exposure, known.exposure) < 0 {
			known.exposure, known.inside = e.exposure, e.inside
		}
		for _, word := range e.processes {
			if !slices.Contains(known.processes, word) {
				known.processes = append(known.processes, word)
			}
		}
		slices.Sort(known.processes)
		return all
	}
	return append(all, e)
}

func compareEntries(a, b *draft) int {
	return CompareDrifts(model.OpenDrift{Target: a.target, Listener: model.Listener{Port: a.port, Protocol: a.protocol}},
		model.OpenDrift{Target: b.target, Listener: model.Listener{Port: b.port, Protocol: b.protocol}})
}

// lines writes an entry as YAML.
func lines(e *draft) string {
	var b strings.Builder
	for _, comment := range e.comments {
		b.WriteString("  # " + comment + "\n")
	}
	fmt.Fprintf(&b, "  - target: %s\n    port: %d/%s\n    exposure: %s\n", quoted(e.target), e.port, e.protocol, e.exposure)
	if e.inside {
		b.WriteString("    outside: false\n")
	}
	if len(e.processes) > 0 {
		b.WriteString("    process: " + quoted(strings.Join(e.processes, ", ")) + "\n")
	}
	if e.reason != "" {
		b.WriteString("    reason: " + quoted(e.reason) + "\n")
	}
	return b.String()
}

// quoted returns a text as a YAML scalar: plain where it is simple, else in double quotes.
func quoted(text string) string {
	plain := true
	for _, word := range strings.Split(text, ", ") {
		plain = plain && isPlain(word)
	}
	switch strings.ToLower(text) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n", "~":
		plain = false
	}
	if plain && strings.ContainsFunc(text, func(r rune) bool { return r > '9' && r != '_' }) {
		return text
	}
	return fmt.Sprintf("%q", text)
}

// Approve returns a file of expectations to which the entry for an event's drift is added, with
// a reason and the date. Comments and the rest stay as they are. The result is valid; an error
// means that the content is not, or that the event has nothing to add.
func Approve(name string, content []byte, e *model.Event, reason string, now time.Time) ([]byte, error) {
	if e.Container == nil || e.Port == 0 || e.Protocol == 0 {
		return nil, fmt.Errorf("event %d is about no port of a container; allowed are events of one port", e.ID)
	}
	file, err := Parse(name, content)
	if err != nil {
		return nil, err
	}
	entry := entryOf(e.Container.Target(), &e.Listener)
	entry.reason = fmt.Sprintf("%s (approved %s, event %d)", reason, now.UTC().Format(untilLayout), e.ID)
	text := lines(entry)
	result := insert(content, file, text)
	if after, err := Parse(name, result); err != nil || len(after.Entries) != len(file.Entries)+1 {
		return nil, fmt.Errorf("%s: the entry cannot be added by itself, because of how the file is written; add it below expect:\n%s", name, text)
	}
	return result, nil
}

// insert adds the lines of an entry behind the list of a file.
func insert(content []byte, file *File, entry string) []byte {
	text := string(content)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	rows := strings.SplitAfter(text, "\n")
	indent := "  "
	if len(file.Entries) > 0 {
		row := rows[file.Entries[len(file.Entries)-1].Line-1]
		indent = row[:len(row)-len(strings.TrimLeft(row, " "))]
	}
	entry = indented(entry, indent)
	if len(file.Entries) == 0 { // expect: [] or nothing behind it
		for i, row := range rows {
			if rest, found := strings.CutPrefix(row, "expect:"); found && strings.Trim(rest, " []\r\n") == "" {
				rows[i] = "expect:\n" + entry
				break
			}
		}
		return []byte(strings.Join(rows, ""))
	}
	at := endOfList(rows, file.Entries[len(file.Entries)-1].Line, len(indent))
	return []byte(strings.Join(rows[:at], "") + entry + strings.Join(rows[at:], ""))
}

// endOfList returns the row behind the last entry, which begins in a line: the first that is
// indented less than its fields, comments and empty rows before it not included.
func endOfList(rows []string, line, indent int) int {
	end := line
	for at := line; at < len(rows); at++ {
		trimmed := strings.TrimLeft(rows[at], " ")
		if strings.TrimSpace(trimmed) == "" || strings.HasPrefix(trimmed, "#") && len(rows[at])-len(trimmed) <= indent {
			continue
		}
		if len(rows[at])-len(trimmed) <= indent {
			break
		}
		end = at + 1
	}
	return end
}

func indented(entry, indent string) string {
	var b strings.Builder
	for row := range strings.Lines(entry) {
		b.WriteString(indent + strings.TrimPrefix(row, "  "))
	}
	return b.String()
}
