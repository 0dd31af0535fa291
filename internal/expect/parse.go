package expect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"portwatcher/internal/model"
)

const (
	// DefaultFor is how long a required port may be absent where the entry does not have it.
	DefaultFor = 30 * time.Second
	// maxFor bounds Entry.For.
	maxFor = 24 * time.Hour
	// maxRequired bounds the ports of one entry that is required.
	maxRequired = 64
	// untilLayout is the form of until; the entry counts to the end of that day in UTC.
	untilLayout = "2006-01-02"
)

// Error is a mistake in a file of expectations. Its text is one line.
type Error struct {
	File string
	Line int // 0: the file as a whole
	// Field is the field of the entry; empty where it is about none.
	Field string
	// Err is what is wrong, with the value, and what is allowed.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.File
	if strings.ContainsFunc(text, unicode.IsControl) {
		text = strconv.Quote(text)
	}
	if e.Line > 0 {
		text += ":" + strconv.Itoa(e.Line)
	}
	if e.Field != "" {
		text += ": " + e.Field
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxProblems is the number of mistakes that are reported together.
const maxProblems = 20

// Parse reads a file of expectations. The error is one line for each mistake, and wraps an
// [*Error] for each; then there is no file.
func Parse(name string, content []byte) (*File, error) {
	p := parser{file: &File{Name: name, required: map[portOf]bool{}}}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if err == nil {
		p.document(&document)
		if err = decoder.Decode(&second); err == nil {
			p.report(max(second.Line, 1), "", "a second document begins; allowed is one")
		}
	} else if errors.Is(err, io.EOF) {
		p.report(0, "", "it is empty; allowed is a file that begins with version: 1")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	if len(p.problems) > 0 {
		return nil, p.err()
	}
	return p.file, nil
}

type parser struct {
	file     *File
	problems []error
}

func (p *parser) report(line int, field, format string, arguments ...any) {
	p.problems = append(p.problems, &Error{p.file.Name, line, field, fmt.Errorf(format, arguments...)})
}

func (p *parser) err() error {
	if more := len(p.problems) - maxProblems; more > 0 {
		p.problems = append(p.problems[:maxProblems], fmt.Errorf("and %d more problems", more))
	}
	return errors.Join(p.problems...)
}

// syntaxError matches an error of the YAML library, which names the line where the construct
// with the mistake begins, or the one before the mistake. Some errors have none.
var syntaxError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func (p *parser) syntax(err error) {
	line, where, reason := 0, "", err.Error()
	if match := syntaxError.FindStringSubmatch(reason); match != nil {
		reason = match[2]
		if number, err := strconv.Atoi(match[1]); err == nil {
			line, where = number, " in or after this line"
		}
	}
	p.report(line, "", "it is not valid YAML%s: %s; put text that begins with * or ! in quotes", where, strings.Join(strings.Fields(reason), " "))
}

func (p *parser) document(document *yaml.Node) {
	if len(document.Content) == 0 {
		return
	}
	var version bool
	entries := (*yaml.Node)(nil)
	p.mapping(document.Content[0], "", "the fields version and expect", func(key, value *yaml.Node) {
		switch key.Value {
		case "version":
			version = true
			if value.Kind != yaml.ScalarNode || value.Value != "1" {
				p.report(value.Line, key.Value, "%s: allowed is 1", described(value))
			}
		case "expect":
			entries = value
		default:
			p.report(key.Line, shortened(key.Value), "no such field; allowed are version and expect")
		}
	})
	switch {
	case len(p.problems) > 0 && entries == nil:
	case !version:
		p.report(document.Content[0].Line, "version", "it is missing; allowed is 1")
	case entries == nil:
		p.report(document.Content[0].Line, "expect", "it is missing; allowed is a list of entries, [] for none")
	}
	if entries == nil {
		return
	}
	if entries.Kind != yaml.SequenceNode {
		p.report(entries.Line, "expect", "it is %s; allowed is a list of entries, [] for none", described(entries))
		return
	}
	for _, node := range entries.Content {
		p.entry(node)
	}
}

// mapping calls f for each field of a mapping.
func (p *parser) mapping(node *yaml.Node, field, allowed string, f func(key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		p.report(node.Line, field, "it is %s; allowed is a mapping with %s", described(node), allowed)
		return
	}
	lines := map[string]int{}
	for pair := range slices.Chunk(node.Content, 2) {
		key := pair[0]
		if key.Kind != yaml.ScalarNode {
			p.report(key.Line, field, "a field is %s; allowed are %s", described(key), allowed)
			continue
		}
		if first, found := lines[key.Value]; found {
			p.report(key.Line, shortened(key.Value), "it is given twice, first in line %d; allowed is once", first)
			continue
		}
		lines[key.Value] = key.Line
		f(key, pair[1])
	}
}

const entryFields = "target, port, exposure, outside, process, reason, until, required, for"

func (p *parser) entry(node *yaml.Node) {
	before := len(p.problems)
	e := &Entry{Line: node.Line, For: DefaultFor}
	given := map[string]bool{}
	p.mapping(node, "expect", "the fields "+entryFields, func(key, value *yaml.Node) {
		set := fields[key.Value]
		if set == nil {
			p.report(key.Line, shortened(key.Value), "no such field; allowed are %s", entryFields)
			return
		}
		given[key.Value] = true
		text, err := scalar(value)
		if err == nil {
			if err = set(e, text); err != nil {
				err = fmt.Errorf("%s: %w", model.Quoted(text), entryReason(err, text))
			}
		}
		if err != nil {
			p.report(max(value.Line, key.Line), key.Value, "%w", err)
		}
	})
	if len(p.problems) > before {
		return
	}
	for _, missing := range []struct{ field, allowed string }{
		{"target", "allowed are " + model.SelectionHelp + "; * for every container"},
		{"port", "allowed are ports and ranges, such as 80/tcp and 8000-8100"},
		{"exposure", "allowed are " + model.Join(model.Exposures, ", ") + ": the widest that is expected"},
	} {
		if !given[missing.field] {
			p.report(node.Line, missing.field, "it is missing; %s", missing.allowed)
		}
	}
	if given["for"] && !e.Required {
		p.report(node.Line, "for", "it has a meaning only with required: true")
	}
	if e.Required && given["port"] {
		p.require(node.Line, e)
	}
	if len(p.problems) == before {
		p.file.Entries = append(p.file.Entries, e)
	}
}

// require checks the ports of an entry that is required: each is one port of one protocol.
func (p *parser) require(line int, e *Entry) {
	count := 0
	e.Ports.Each(func(first, last uint16, protocol model.Protocol) {
		if count++; first != last || protocol == 0 {
			p.report(line, "port", "%q: with required: true, allowed are single ports with a protocol, such as 5432/tcp,53/udp", e.Ports)
		}
		p.file.required[portOf{protocol, first}] = true
	})
	if count > maxRequired {
		p.report(line, "port", "%d ports: with required: true, allowed are at most %d", count, maxRequired)
	}
}

// entryReason leaves out the name of the entry of a list that is the whole list.
func entryReason(err error, text string) error {
	if entry, ok := errors.AsType[*model.EntryError](err); ok && entry.Entry == strings.TrimSpace(text) {
		return entry.Err
	}
	return err
}

// scalar returns the text of a value, as it is written.
func scalar(node *yaml.Node) (string, error) {
	if node.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str", "!!int", "!!float", "!!timestamp", "!!bool"}, node.Tag) {
		return "", fmt.Errorf("it is %s; allowed is text, and quotes around text that begins with ! are needed", described(node))
	}
	if !utf8.ValidString(node.Value) || strings.ContainsFunc(node.Value, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
		return "", fmt.Errorf("%s: allowed is text without control characters", model.Quoted(node.Value))
	}
	return node.Value, nil
}

// described names what a node is.
func described(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.Kind == yaml.AliasNode:
		return "an alias"
	case node.Tag == "!!null":
		return "empty"
	}
	return model.Quoted(node.Value)
}

// shortened returns a text of the file in quotes if it does not fit in a line as it is.
func shortened(text string) string {
	if quoted := model.Quoted(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
