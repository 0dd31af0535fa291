package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"text/template"
	"time"
)

// maxTemplated bounds what a template makes, in bytes.
const maxTemplated = 1 << 20

// templateFunctions are beside those of text/template.
var templateFunctions = template.FuncMap{
	"json":     func(value any) (string, error) { text, err := encodeJSON(value); return string(text), err },
	"title":    func(n *Notification) string { return compose(n).title },
	"text":     func(n *Notification) string { return compose(n).text() },
	"markdown": func(n *Notification) string { return compose(n).markdown(markdownText) },
	"status":   func(n *Notification) Status { return n.NotificationStatus() },
	"sentence": func(a Alert) string { return sentence(&a) },
	"type":     func(a Alert) string { return eventType(a.Event) },
	"subject":  func(a Alert) string { return eventSubject(a.Event) },
}

// newTemplate reads a template and tries it with an example of each kind, so that a mistake stops
// the start and not the first alert of a night.
func newTemplate(text, mediaType string) (func(*Notification) (content, error), error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("template: it is empty; allowed is a Go template over the notification, for the format template")
	}
	if mediaType == "" {
		mediaType = jsonMediaType
	}
	kind, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return nil, fmt.Errorf("content_type: %q: %w; allowed is a media type such as text/plain", mediaType, err)
	}
	parsed, err := template.New("template").Option("missingkey=error").Funcs(templateFunctions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	encode := func(n *Notification) (content, error) {
		b := bounded{most: maxTemplated}
		if err := parsed.Execute(&b, printable(n)); err != nil {
			return content{}, fmt.Errorf("template: %w", err)
		}
		if kind == "application/json" && !json.Valid(b.Bytes()) {
			return content{}, errors.New(`template: what it makes is not valid JSON; {{json .Host}} writes a text with its quotes, or set content_type`)
		}
		return content{mediaType: mediaType, body: b.Bytes()}, nil
	}
	for _, example := range Examples("node1", time.Now(), "https://portwatcher.example.org") {
		if _, err := encode(example.Notification); err != nil {
			return nil, fmt.Errorf("%w (with the example %q)", err, example.Name)
		}
	}
	return encode, nil
}

// bounded is a buffer that refuses to grow beyond a size.
type bounded struct {
	bytes.Buffer
	most int
}

// Write implements [io.Writer].
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, fmt.Errorf("it makes more than %d bytes", b.most)
	}
	return b.Buffer.Write(p)
}
