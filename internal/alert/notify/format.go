package notify

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// The formats of webhooks.
const (
	FormatCloudEvents = "cloudevents"
	FormatSlack       = "slack"
	FormatDiscord     = "discord"
	FormatTeams       = "teams"
	FormatNtfy        = "ntfy"
	FormatGotify      = "gotify"
	FormatTemplate    = "template"
)

// Formats has the formats of webhooks; the first is the one where none is named.
var Formats = []string{FormatCloudEvents, FormatSlack, FormatDiscord, FormatTeams, FormatNtfy, FormatGotify, FormatTemplate}

// content is what a webhook posts.
type content struct {
	mediaType string
	header    http.Header // beside the media type; nil for none
	body      []byte
}

// encoders make the content of each format but the template.
var encoders = map[string]func(*Notification) (content, error){
	FormatCloudEvents: func(n *Notification) (content, error) { return asContent(eventMediaType)(encodeEvent(n)) },
	FormatSlack:       func(n *Notification) (content, error) { return asContent(jsonMediaType)(encodeJSON(slack(n))) },
	FormatDiscord:     func(n *Notification) (content, error) { return asContent(jsonMediaType)(encodeJSON(discord(n))) },
	FormatTeams:       func(n *Notification) (content, error) { return asContent(jsonMediaType)(encodeJSON(teams(n))) },
	FormatGotify:      func(n *Notification) (content, error) { return asContent(jsonMediaType)(encodeJSON(gotify(n))) },
	FormatNtfy:        ntfy,
}

const jsonMediaType = "application/json; charset=utf-8"

func asContent(mediaType string) func(body []byte, err error) (content, error) {
	return func(body []byte, err error) (content, error) { return content{mediaType: mediaType, body: body}, err }
}

// colors are those of the bar beside a message: of a severity, and of the end.
var colors = map[string]int{string(Info): 0x3b82f6, string(Warning): 0xf59e0b, string(Critical): 0xdc2626, string(Resolved): 0x16a34a}

// tone is the severity, or resolved.
func tone(n *Notification) string {
	if n.NotificationStatus() == Resolved {
		return string(Resolved)
	}
	return string(n.Severity)
}

type object = map[string]any

// Slack's bounds: blocks of a message, characters of a section and of a header
// (https://docs.slack.dev/reference/block-kit/blocks/).
const (
	slackBlocks  = 50
	slackSection = 3000
	slackHeader  = 150
)

// slack is a message of blocks. Their texts are of the type plain_text, in which nothing is
// syntax: neither layout nor mentions. The text beside the blocks, for notifications of phones, is
// escaped.
func slack(n *Notification) object {
	m := compose(n)
	plain := func(text string, most int) object {
		return object{"type": "plain_text", "text": shorten(text, most), "emoji": false}
	}
	blocks := []object{{"type": "header", "text": plain(m.title, slackHeader)}}
	for _, line := range m.intro {
		blocks = append(blocks, object{"type": "section", "text": plain(line, slackSection)})
	}
	rest := 0
	for i := range m.items {
		it := &m.items[i]
		if len(blocks) > slackBlocks-4 {
			rest = len(m.items) - i
			break
		}
		var text strings.Builder
		text.WriteString(it.title + "\n")
		link := it.url
		(&item{facts: it.facts, lines: it.lines}).write(&text)
		blocks = append(blocks, object{"type": "section", "text": plain(text.String(), slackSection)})
		if link != "" {
			blocks = append(blocks, object{"type": "section", "text": object{
				"type": "mrkdwn", "text": "<" + slackText(link) + "|Open the page>"}})
		}
	}
	if rest > 0 {
		blocks = append(blocks, object{"type": "section", "text": plain("And "+count(rest, "more alert")+" here.", slackSection)})
	}
	if m.rest != "" {
		blocks = append(blocks, object{"type": "section", "text": plain(m.rest, slackSection)})
	}
	blocks = append(blocks, object{"type": "context", "elements": []object{plain(m.footer, slackSection)}})
	return object{"text": slackText(m.title), "blocks": blocks}
}

// Discord's bounds, in characters (https://discord.com/developers/docs/resources/message#embed-object).
const (
	discordTitle       = 256
	discordDescription = 4096
)

// discord is a message with one embed. No mention is allowed in it.
func discord(n *Notification) object {
	m := compose(n)
	return object{
		"embeds": []object{{
			"title": shorten(markdownText(m.title), discordTitle), "description": cut(m.markdownBody(markdownText), discordDescription),
			"color": colors[tone(n)],
		}},
		"allowed_mentions": object{"parse": []string{}},
	}
}

// teams is an Adaptive Card as workflows of Teams take it. Its texts are runs, which Teams does
// not read as Markdown (https://adaptivecards.io/explorer/TextRun.html).
func teams(n *Notification) object {
	m := compose(n)
	run := func(text string) object { return object{"type": "TextRun", "text": text} }
	bold := func(text string) object { return object{"type": "TextRun", "text": text, "weight": "bolder"} }
	rich := func(runs ...object) object { return object{"type": "RichTextBlock", "inlines": runs} }
	body := []object{rich(object{"type": "TextRun", "text": m.title, "weight": "bolder", "size": "medium"})}
	for _, line := range m.intro {
		body = append(body, rich(run(line)))
	}
	actions := []object{}
	for i := range m.items {
		it := &m.items[i]
		if len(m.items) > 1 {
			body = append(body, rich(bold(strconv.Itoa(i+1)+". "+it.title)))
		}
		for _, f := range it.facts {
			body = append(body, rich(bold(f.name+" "), run(f.value)))
		}
		if it.url != "" && len(actions) == 0 {
			actions = append(actions, object{"type": "Action.OpenUrl", "title": "Open the page", "url": it.url})
		}
		if len(it.lines) > 0 {
			body = append(body, rich(run(expectHeading+":")))
			for _, line := range it.lines {
				body = append(body, rich(object{"type": "TextRun", "text": line, "fontType": "monospace"}))
			}
		}
	}
	if m.rest != "" {
		body = append(body, rich(run(m.rest)))
	}
	body = append(body, rich(object{"type": "TextRun", "text": m.footer, "isSubtle": true}))
	card := object{
		"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
		"msteams": object{"width": "Full"}, "body": body, "actions": actions,
	}
	return object{"type": "message", "attachments": []object{{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}}}
}

// priorities are those of ntfy (1 to 5) and Gotify (0 to 10).
var priorities = map[string]struct{ ntfy, gotify int }{
	string(Info): {3, 4}, string(Warning): {4, 6}, string(Critical): {5, 9}, string(Resolved): {3, 4},
}

var ntfyTags = map[string]string{
	string(Info): "information_source", string(Warning): "warning", string(Critical): "rotating_light", string(Resolved): "white_check_mark",
}

// ntfyText is the number of bytes from which ntfy makes a file of a message
// (https://docs.ntfy.sh/publish/#limitations).
const ntfyText = 4096

// ntfy is a message as ntfy takes it at the address of a topic: its text is the body, all else are
// headers, in which other characters than those of ASCII are encoded (RFC 2047).
func ntfy(n *Notification) (content, error) {
	m := compose(n)
	header := http.Header{}
	header.Set("Title", mime.QEncoding.Encode("utf-8", m.title))
	header.Set("Priority", strconv.Itoa(priorities[tone(n)].ntfy))
	header.Set("Tags", ntfyTags[tone(n)])
	if url := m.items[0].url; url != "" {
		header.Set("Click", url)
	}
	return content{mediaType: "text/plain; charset=utf-8", header: header, body: []byte(cut(strings.TrimSpace(m.body()), ntfyText))}, nil
}

// gotifyText bounds a message for Gotify, in bytes.
const gotifyText = 16 << 10

// gotify is a message in plain text; Gotify shows it as it is.
func gotify(n *Notification) object {
	m := compose(n)
	extras := object{"client::display": object{"contentType": "text/plain"}}
	if url := m.items[0].url; url != "" {
		extras["client::notification"] = object{"click": object{"url": url}}
	}
	return object{"title": m.title, "message": cut(strings.TrimSpace(m.body()), gotifyText), "priority": priorities[tone(n)].gotify, "extras": extras}
}

// checkFormat returns the format, or the error that names what is allowed.
func checkFormat(format string) (string, error) {
	if format == "" {
		return Formats[0], nil
	}
	if format == FormatTemplate || encoders[format] != nil {
		return format, nil
	}
	return "", fmt.Errorf("format: %q; allowed are %s", format, strings.Join(Formats, ", "))
}
