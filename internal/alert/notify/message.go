package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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

// urgency orders alerts: what lasts and is urgent first.
func urgency(a, b *Alert) int {
	return cmp.Or(-cmp.Compare(statusOrder(a.Status), statusOrder(b.Status)), -a.Severity.Compare(b.Severity))
}

// Urgent reports, for each alert of a notification, whether it is one of the first so many that a
// message describes.
func Urgent(alerts []Alert, most int) []bool {
	order := make([]int, len(alerts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return urgency(&alerts[i], &alerts[j]) })
	urgent := make([]bool, len(alerts))
	for _, i := range order[:min(len(order), most)] {
		urgent[i] = true
	}
	return urgent
}

func compose(n *Notification) *message {
	alerts := slices.Clone(n.Alerts)
	slices.SortStableFunc(alerts, func(a, b Alert) int { return urgency(&a, &b) })
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
