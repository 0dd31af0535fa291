package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// Message is a notification for people, in each form.
type Message struct {
	// Title is one line of at most [maxTitle] characters.
	Title string
	// Text is plain text, HTML a document, and Markdown what Discord and most others read.
	Text, HTML, Markdown string
}

// Render writes a notification for people. It has at most [MaxItems] alerts in full, the most
// urgent ones, and counts the others.
func Render(n *Notification) Message {
	m := compose(n)
	return Message{Title: m.title, Text: m.text(), HTML: m.html(), Markdown: m.markdown(markdownText)}
}

const (
	// MaxItems is the number of alerts that a message describes in full.
	MaxItems = 20
	maxTitle = 200 // characters
	maxValue = 300 // characters of a fact
)

// message is a notification in words. Its texts are printable and in no target's syntax.
type message struct {
	title string
	// intro precedes the items: empty for a single alert.
	intro []string
	items []item
	// rest counts what is not in items; empty where all are.
	rest string
	// footer identifies the notification.
	footer string
}

// item is one alert in words.
type item struct {
	title string
	facts []fact
	// lines are lines of YAML to add to the file of expectations.
	lines []string
	url   string
}

// fact is a line of an item.
type fact struct{ name, value string }

func compose(n *Notification) *message {
	alerts := slices.Clone(n.Alerts)
	slices.SortStableFunc(alerts, func(a, b Alert) int { // what lasts and is urgent first
		return cmp.Or(-cmp.Compare(statusOrder(a.Status), statusOrder(b.Status)), -a.Severity.Compare(b.Severity))
	})
	m := &message{footer: fmt.Sprintf("Notification %s of portwatcher, made at %s.", clean(n.ID), timeText(n.Time))}
	for i := range alerts[:min(len(alerts), MaxItems)] {
		m.items = append(m.items, describe(n, &alerts[i]))
	}
	if more := len(alerts) - len(m.items); more > 0 {
		m.rest = fmt.Sprintf("And %s, which `portwatcher alerts list` and the page show.", count(more, "more alert"))
	}
	m.title = shorten(marks(n)+clean(n.Host)+": "+headline(n, alerts), maxTitle)
	if n.Test {
		m.intro = append(m.intro, "This is an example, made by `portwatcher alerts test`. Nothing has happened.")
	}
	if n.Digest {
		m.intro = append(m.intro, "This was held back by quiet hours or by the bound on messages an hour.")
	}
	return m
}

func statusOrder(s Status) int {
	if s == Resolved {
		return 0
	}
	return 1
}

// NotificationStatus is firing while one of the alerts is.
func (n *Notification) NotificationStatus() Status {
	for i := range n.Alerts {
		if n.Alerts[i].Status != Resolved {
			return Firing
		}
	}
	return Resolved
}

// marks are the words in brackets at the beginning of a title.
func marks(n *Notification) string {
	mark := string(n.Severity)
	if n.NotificationStatus() == Resolved {
		mark = string(Resolved)
	}
	text := "[" + mark + "] "
	if n.Test {
		text = "[example] " + text
	}
	return text
}

// headline is what happened in one line.
func headline(n *Notification, alerts []Alert) string {
	if len(alerts) == 1 && !n.Digest {
		return sentence(&alerts[0])
	}
	firing := 0
	for i := range alerts {
		firing += statusOrder(alerts[i].Status)
	}
	var parts []string
	if firing > 0 {
		parts = append(parts, count(firing, "alert"))
	}
	if resolved := len(alerts) - firing; resolved > 0 {
		parts = append(parts, fmt.Sprintf("%d resolved", resolved))
	}
	text := strings.Join(parts, " and ")
	if n.Project != "" {
		text += " in " + clean(n.Project)
	}
	if n.Digest {
		text = "digest of " + text
	}
	return text + ", first: " + sentence(&alerts[0])
}

// describe puts one alert into words.
func describe(n *Notification, a *Alert) item {
	e := a.Event
	it := item{title: sentence(a), url: linkText(a.URL)}
	add := func(name, value string) {
		if value != "" {
			it.facts = append(it.facts, fact{name, shorten(value, maxValue)})
		}
	}
	add("Where", where(n, e))
	add("Address", address(e))
	add("Reachable", reachable(e))
	add("Process", processes(e))
	add("Since", moment(a.Since, n.Time))
	if a.Status == Resolved {
		add("Until", moment(a.Until, n.Time))
	}
	add("Seen before", seenBefore(a, n.Time))
	add("Container", lastChange(a.LastChange, n.Time))
	if e.Reason != "" && e.Type != model.Gap {
		add("Reason", clean(e.Reason))
	}
	add("Rule", clean(a.Rule)+", "+string(a.Severity))
	for line := range strings.Lines(a.Expectation) {
		it.lines = append(it.lines, output.Printable(strings.TrimRight(line, "\r\n")))
	}
	return it
}

// where names container, image and host.
func where(n *Notification, e *model.Event) string {
	host := "host " + clean(cmp.Or(e.Host, n.Host))
	c := e.Container
	if c == nil {
		return host
	}
	text := "container " + clean(c.Name)
	if c.Project != "" && c.Service != "" {
		text += " (service " + clean(c.Service) + " of project " + clean(c.Project) + ")"
	} else if c.Project != "" {
		text += " (project " + clean(c.Project) + ")"
	}
	if c.Image != "" {
		text += ", image " + clean(c.Image)
	}
	return text + ", " + host
}

func address(e *model.Event) string {
	if !e.Address.IsValid() || e.Port == 0 {
		return ""
	}
	return port(e) + " on " + output.AddressText(&e.Listener)
}

// reachable names who can reach the endpoint, and who could before.
func reachable(e *model.Event) string {
	if e.Exposure == "" || e.Port == 0 {
		return ""
	}
	text := reach(e.Exposure, e.Published)
	if e.PreviousExposure != "" {
		text += "; before: " + reach(e.PreviousExposure, e.PreviousPublished)
	}
	if e.Type == model.Closed {
		text = "it was reachable " + text
	}
	return text
}

func reach(e model.Exposure, published []string) string {
	at := ""
	if len(published) > 0 {
		at = ", published at " + clean(strings.Join(published, ", "))
	}
	switch e {
	case model.Loopback:
		return "from its own network namespace only"
	case model.Network:
		return "from the container's networks and this host"
	case model.Lan:
		return "from other machines, at the container's own address"
	case model.Published:
		if model.OnlyLoopback(published) {
			return "from this host only" + at
		}
		return "from other machines" + at
	case model.Host:
		return "from other machines, on the host's network"
	}
	return clean(string(e))
}

// maxProcesses is how many processes a message names.
const maxProcesses = 3

func processes(e *model.Event) string {
	if len(e.Processes) == 0 {
		return ""
	}
	text := "pid " + output.ProcessList(e.Processes, maxProcesses)
	if first := e.Processes[0]; first.Executable != "" {
		text += ", executable " + clean(first.Executable)
	}
	return text
}

// seenBefore is when the endpoint was open before. Where it is not known to have been, it is never
// for a port that has opened; for others the question makes no sense.
func seenBefore(a *Alert, now time.Time) string {
	switch {
	case a.Event.Port == 0 || a.Status == Resolved || a.LastSeen == nil && a.Event.Type != model.Opened:
		return ""
	case a.LastSeen == nil:
		return "never"
	}
	return "last open at " + moment(*a.LastSeen, now)
}

func lastChange(c *ContainerChange, now time.Time) string {
	if c == nil {
		return ""
	}
	text := "started at " + moment(c.At, now)
	if c.Image != "" {
		text += " with image " + clean(c.Image)
	}
	if c.PreviousImage != "" {
		text += ", before: " + clean(c.PreviousImage)
	}
	return text
}

// moment is a time, and how long before the message it was.
func moment(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	text := timeText(t)
	if before := now.Sub(t); before >= time.Second {
		duration := before.Round(time.Second).String() // a minute has no fractions
		if before >= time.Hour {
			duration = output.DurationText(before.Seconds())
		}
		text += " (" + duration + " before this message)"
	}
	return text
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// linkText is an address in which all that ends it, in whatever text it stands, is escaped: it
// may contain a name from outside. What is no address of a page is left out.
func linkText(url string) string {
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return ""
	}
	var b strings.Builder
	for i := range len(url) {
		if c := url[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("<>\"`{}|\\^@", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// clean makes a text that comes from outside printable: one line without control characters and
// direction marks.
func clean(text string) string { return output.Printable(text) }

// shorten cuts a text after so many characters.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:most-1]) + "…"
}
