package notify

import (
	"bytes"
	"fmt"
	"html/template"
	"strings"
)

// text writes a message as plain text, in lines that are not wrapped.
func (m *message) text() string {
	var b strings.Builder
	b.WriteString(m.title + "\n")
	b.WriteString(m.body())
	return b.String()
}

// body is the text without the title.
func (m *message) body() string {
	var b strings.Builder
	for _, line := range m.intro {
		b.WriteString(line + "\n")
	}
	for i := range m.items {
		b.WriteString("\n")
		it := &m.items[i]
		if len(m.items) > 1 {
			fmt.Fprintf(&b, "%d. %s\n", i+1, it.title)
		}
		it.write(&b)
	}
	if m.rest != "" {
		b.WriteString("\n" + m.rest + "\n")
	}
	b.WriteString("\n" + m.footer + "\n")
	return b.String()
}

func (it *item) write(b *strings.Builder) {
	for _, f := range it.facts {
		fmt.Fprintf(b, "%-12s %s\n", f.name+":", f.value)
	}
	if it.url != "" {
		fmt.Fprintf(b, "%-12s %s\n", "Page:", it.url)
	}
	if len(it.lines) > 0 {
		b.WriteString(expectHeading + ":\n")
		for _, line := range it.lines {
			b.WriteString("  " + line + "\n")
		}
	}
}

// expectHeading precedes the lines for the file of expectations.
const expectHeading = "To expect it, add to the file of expectations"

// document is the HTML form. Mail programs ignore style sheets, so each element has its own
// style.
var document = template.Must(template.New("html").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Title}}</title></head>
<body style="font-family: sans-serif">
<h2 style="font-size: 1.2em">{{.Title}}</h2>
{{- range .Intro}}
<p>{{.}}</p>
{{- end}}
{{- range $item := .Items}}
{{- if $.Several}}
<h3 style="font-size: 1em">{{.Title}}</h3>
{{- end}}
<table cellpadding="3">
{{- range .Facts}}
<tr><th align="left" valign="top">{{.Name}}</th><td>{{.Value}}</td></tr>
{{- end}}
{{- if .URL}}
<tr><th align="left" valign="top">Page</th><td><a href="{{.URL}}">{{.URL}}</a></td></tr>
{{- end}}
</table>
{{- if .Lines}}
<p>{{$.Heading}}:</p>
<pre>{{.Lines}}</pre>
{{- end}}
{{- end}}
{{- if .Rest}}
<p>{{.Rest}}</p>
{{- end}}
<p style="color: #666">{{.Footer}}</p>
</body>
</html>
`))

type htmlFact struct{ Name, Value string }

type htmlItem struct {
	Title, URL, Lines string
	Facts             []htmlFact
}

// html writes a message as an HTML document.
func (m *message) html() string {
	items := make([]htmlItem, len(m.items))
	for i, it := range m.items {
		items[i] = htmlItem{Title: it.title, URL: it.url, Lines: strings.Join(it.lines, "\n")}
		for _, f := range it.facts {
			items[i].Facts = append(items[i].Facts, htmlFact{f.name, f.value})
		}
	}
	var b bytes.Buffer
	err := document.Execute(&b, map[string]any{
		"Title": m.title, "Intro": m.intro, "Items": items, "Several": len(items) > 1, "Rest": m.rest, "Footer": m.footer, "Heading": expectHeading,
	})
	if err != nil { // a fixed template over texts, into memory
		panic("notify: the HTML of a message: " + err.Error())
	}
	return b.String()
}

// markdown writes a message as Markdown, in which escape makes a text of its syntax.
func (m *message) markdown(escape func(string) string) string {
	var b strings.Builder
	b.WriteString("**" + escape(m.title) + "**\n")
	b.WriteString(m.markdownBody(escape))
	return b.String()
}

func (m *message) markdownBody(escape func(string) string) string {
	var b strings.Builder
	for _, line := range m.intro {
		b.WriteString(escape(line) + "\n")
	}
	for i := range m.items {
		b.WriteString("\n")
		it := &m.items[i]
		if len(m.items) > 1 {
			fmt.Fprintf(&b, "**%d. %s**\n", i+1, escape(it.title))
		}
		for _, f := range it.facts {
			fmt.Fprintf(&b, "**%s** %s\n", f.name, escape(f.value))
		}
		if it.url != "" {
			fmt.Fprintf(&b, "**Page** <%s>\n", it.url)
		}
		if len(it.lines) > 0 {
			b.WriteString(expectHeading + ":\n```yaml\n")
			for _, line := range it.lines {
				b.WriteString(strings.ReplaceAll(unmentioned(line), "`", "'") + "\n")
			}
			b.WriteString("```\n")
		}
	}
	if m.rest != "" {
		b.WriteString("\n" + escape(m.rest) + "\n")
	}
	b.WriteString("\n" + escape(m.footer) + "\n")
	return b.String()
}
