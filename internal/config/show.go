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

// WriteYAML writes the settings with where each came from, as a configuration
// file that gives the same settings. A secret stands in a comment, without its
// value.
func WriteYAML(w io.Writer, settings *Settings) error {
	lines, widest := make([]string, len(table)), 0
	for i, s := range table {
		lines[i] = s.key() + ": " + s.yaml(s.get(settings))
		switch value := s.get(settings); {
		case s.secret && value != "":
			lines[i] = "# " + s.key() + ": " + s.shown(value)
		case s.outside:
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
	return out.Flush()
}

// maxAligned is the length up to which lines count for the column of comments.
const maxAligned = 60

// effective is a setting in JSON.
type effective struct {
	Name string `json:"name"` // as in the file
	// Value is a list of texts, a truth value, a number or a text.
	Value  any    `json:"value"`
	Source string `json:"source"`
}

// WriteJSON writes the settings as an array of objects with name, value and
// source. A secret's value is "(secret)".
func WriteJSON(w io.Writer, settings *Settings) error {
	values := make([]effective, len(table))
	for i, s := range table {
		value := s.shown(s.get(settings))
		values[i] = effective{Name: s.key(), Value: value, Source: settings.origins[s.name]}
		if s.list {
			values[i].Value = append([]string{}, model.Words(value)...)
		} else if s.kind == "" || s.kind == "count" {
			values[i].Value = json.RawMessage(value)
		}
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
		"A flag wins over the environment, and the environment over this file, which is "+DefaultFile+" unless --config names another.")
	fmt.Fprintln(out, "#")
	writeComment(out, "SIGHUP, or a change of this file, puts the reloadable settings into effect at once; the others take a restart.")
	for _, s := range table {
		if s.outside {
			continue
		}
		fmt.Fprintln(out)
		writeComment(out, strings.ToUpper(s.usage[:1])+s.usage[1:]+".")
		forms := "Also --" + s.name + ", " + s.variables() + "."
		if s.reloadable {
			forms += " Reloadable."
		}
		writeComment(out, forms)
		fmt.Fprintf(out, "%s: %s\n", s.key(), s.yaml(s.standard))
	}
	return out.Flush()
}

// writeComment writes a comment, in lines of up to 100 characters where words
// allow it. Errors are the buffer's to keep.
func writeComment(out *bufio.Writer, text string) {
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 100 && line != "#" {
			fmt.Fprintln(out, line)
			line = "#"
		}
		line += " " + word
	}
	fmt.Fprintln(out, line)
}

// yaml returns a value in the form of the file.
func (s *setting) yaml(value string) string {
	if s.kind == "" {
		return value // true or false
	}
	if !s.list {
		return scalar(value)
	}
	words := model.Words(value)
	for i, word := range words {
		words[i] = scalar(word)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// plainText matches what may need no quotes.
var plainText = regexp.MustCompile(`^[\w./+]([\w./@+:=*-]*[\w./@+=*-])?$`)

// scalar returns a text as YAML that says the same in a list and by itself. The
// quoted form of Go is one of YAML, too.
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
