package config

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/model"

	"go.yaml.in/yaml/v3"
)

// maxAligned is the length up to which lines count for the column of comments.
const maxAligned = 60

// WriteYAML writes the settings, and where each came from in comments, as a
// configuration file with the same settings. A secret is a comment without its value.
func WriteYAML(w io.Writer, settings *Settings) error {
	lines, widest := make([]string, len(table)), 0
	for i, s := range table {
		text := s.text(settings)
		lines[i] = s.key + ": " + s.yaml(text)
		if s.secret && text != "" {
			lines[i] = "# " + s.key + ": " + s.shown(text)
		} else if s.flagOnly {
			lines[i] = "# " + lines[i]
		}
		if width := len(lines[i]); width <= maxAligned {
			widest = max(widest, width)
		}
	}
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "# The settings in effect, and where each came from.")
	for i, s := range table {
		fmt.Fprintf(out, "%-*s  # %s\n", widest, lines[i], settings.origins[s.name])
	}
	if a := settings.Alerts; a.Node != nil {
		fmt.Fprintf(out, "# %s: (as in the file)  # %s\n", AlertsSection, place(a.File, a.Line))
	}
	return out.Flush()
}

// effective is a setting in JSON.
type effective struct {
	Name string `json:"name"` // as in the file
	// Value is an array of strings, a boolean, a number or a string.
	Value  any    `json:"value"`
	Source string `json:"source"`
}

// WriteJSON writes the settings as an array of objects with name, value and source. A
// secret's value is "(secret)".
func WriteJSON(w io.Writer, settings *Settings) error {
	values := make([]effective, len(table))
	for i, s := range table {
		text := s.shown(s.text(settings))
		values[i] = effective{Name: s.key, Value: text, Source: settings.origins[s.name]}
		if s.list {
			values[i].Value = append([]string{}, model.Words(text)...)
		} else if s.kind == "" || s.kind == "count" {
			values[i].Value = json.RawMessage(text)
		}
	}
	if a := settings.Alerts; a.Node != nil {
		values = append(values, effective{Name: AlertsSection, Value: "(as in the file)", Source: "file " + place(a.File, a.Line)})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(values)
}

// WriteExample writes a complete file with every setting at its default.
func WriteExample(w io.Writer) error {
	out := bufio.NewWriter(w)
	writeComment(out, "The settings of portwatcher, each at its default: keep what you change. "+
		"A flag wins over the environment, and the environment over this file, which is "+
		lookup(ConfigFile).standard+" unless --config names another.")
	fmt.Fprintln(out, "#")
	writeComment(out, "SIGHUP, or a change of this file, puts the reloadable settings into effect at once; the others take a restart.")
	for _, s := range table {
		if s.flagOnly {
			continue
		}
		usage := usages[s.name]
		forms := "Also --" + s.name + ", " + s.variables() + "."
		if s.reloadable {
			forms += " Reloadable."
		}
		fmt.Fprintln(out)
		writeComment(out, strings.ToUpper(usage[:1])+usage[1:]+".")
		writeComment(out, forms)
		fmt.Fprintf(out, "%s: %s\n", s.key, s.yaml(s.standard))
	}
	fmt.Fprintln(out)
	writeComment(out, "Rules and receivers of alerts, described in docs/alerts.md. Reloadable.")
	fmt.Fprint(out, alertsExample)
	return out.Flush()
}

// writeComment writes a comment, in lines of up to 100 characters if words allow it.
// The buffer keeps errors until it is flushed.
func writeComment(out *bufio.Writer, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 && line != "#" {
			fmt.Fprintln(out, line)
			line = "#"
		}
		line += " " + word
	}
	fmt.Fprintln(out, line)
}

// yaml returns a value in the form of the file.
func (s *setting) yaml(text string) string {
	if s.kind == "" {
		return text // true or false
	}
	if !s.list {
		return scalar(text)
	}
	words := model.Words(text)
	for i, word := range words {
		words[i] = scalar(word)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// plainText matches what may need no quotes.
var plainText = regexp.MustCompile(`^[\w./+]([\w./@+:=*-]*[\w./@+=*-])?$`)

// scalar returns a text as YAML that means the same in a list and by itself. YAML reads
// the quoted form of Go.
func scalar(text string) string {
	var node yaml.Node
	if plainText.MatchString(text) && yaml.Unmarshal([]byte("["+text+"]"), &node) == nil {
		list := node.Content[0].Content
		if len(list) == 1 && list[0].Kind == yaml.ScalarNode && list[0].Value == text && slices.Contains(textTags, list[0].Tag) {
			return text
		}
	}
	return strconv.Quote(text)
}

// alertsExample is the section of alerts in the example, as a comment: it has no default.
const alertsExample = `#
# alerts:
#   group_wait: 10s      # one message for what happens together, per host and project
#   repeat: 24h          # while it lasts; 0 is never
#   max_per_hour: 60     # messages to each receiver; the rest comes as one digest
#   quiet:
#     - {from: "22:00", to: "07:00", zone: Europe/Berlin, except: critical}
#   rules:               # without rules: the standard ones
#     - {name: unexpected, when: 'drift == "unexpected" && outside', for: 5s, severity: warning, to: [ops]}
#     - {name: blind, when: 'type == "gap"', severity: warning, to: [ops]}
#   receivers:
#     - {name: ops, webhook: {url_file: /run/secrets/hook, secret_file: /run/secrets/hook_key}}
`
