package notify

import (
	"strings"

	"portwatcher/internal/model"
)

// markdownText escapes each character that Markdown gives a meaning within a line
// (https://spec.commonmark.org/0.31.2/#backslash-escapes), and those of Discord. The text does
// not begin a line, or begins with a letter. A @ is replaced: chat services search for mentions
// after they have read the Markdown.
func markdownText(text string) string {
	var b strings.Builder
	for _, r := range unmentioned(text) {
		if strings.ContainsRune("\\`*_[]<>#|~&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// unmentioned replaces the signs by which chat services name people and channels (@everyone,
// <!channel>, <@U123>) with signs that look like them. It keeps the @ of an image's digest.
func unmentioned(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '@' && !strings.HasPrefix(text[i:], "@sha256:"):
			r = '＠'
		case r == '<':
			r = '‹'
		case r == '>':
			r = '›'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// slackText escapes the three characters that Slack's mrkdwn gives a meaning beyond layout
// (https://docs.slack.dev/messaging/formatting-message-text/#escaping).
var slackText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

// cut shortens a text of several lines to so many bytes, at the end of a line where there is
// one, and marks that.
func cut(text string, most int) string {
	const mark = "\n… shortened; `portwatcher alerts list` and the page have all of it.\n"
	if len(text) <= most {
		return text
	}
	text = strings.ToValidUTF8(text[:most-len(mark)], "")
	if end := strings.LastIndexByte(text, '\n'); end > len(text)/2 {
		text = text[:end]
	}
	return text + mark
}

// printable returns a notification whose names from containers and processes have no control
// characters or direction marks, for templates.
func printable(n *Notification) *Notification {
	copied := *n
	copied.ID, copied.Host, copied.Project = clean(n.ID), clean(n.Host), clean(n.Project)
	copied.Alerts = make([]Alert, len(n.Alerts))
	for i, a := range n.Alerts {
		e := *a.Event
		e.Host, e.Namespace, e.Reason = clean(e.Host), clean(e.Namespace), clean(e.Reason)
		if e.Container != nil {
			c := *e.Container
			c.Name, c.Image, c.Project, c.Service, c.Labels = clean(c.Name), clean(c.Image), clean(c.Project), clean(c.Service), nil
			e.Container = &c
		}
		e.Processes = make([]model.Process, len(a.Event.Processes))
		for j, p := range a.Event.Processes {
			p.Name, p.Executable, p.Arguments = clean(p.Name), clean(p.Executable), clean(p.Arguments)
			e.Processes[j] = p
		}
		a.Event = &e
		if a.LastChange != nil {
			change := *a.LastChange
			change.Image, change.PreviousImage = clean(change.Image), clean(change.PreviousImage)
			a.LastChange = &change
		}
		copied.Alerts[i] = a
	}
	return &copied
}
