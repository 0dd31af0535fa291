package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/filewatch"
	"portwatcher/internal/model"

	"go.yaml.in/yaml/v3"
)

// readFile returns the content of a file. The error has no path, which the caller
// names, and wraps [fs.ErrNotExist] if there is no file.
func readFile(name string) ([]byte, error) {
	content, err := filewatch.Read(name, filewatch.MaxSize)
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%w; allowed is a YAML file of up to 1 MiB that portwatcher can read, and empty for none", failed.Err)
	}
	return content, err
}

// parseFile checks a file. It returns a [value] for each key without a problem, the section of
// alerts, and all problems except those after a syntax error.
func parseFile(name string, content []byte) (map[string]any, Section, []*Error) {
	p := fileParser{name: name, values: map[string]any{}}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if err == nil {
		if len(document.Content) > 0 {
			p.mapping(document.Content[0])
		}
		if err = decoder.Decode(&second); err == nil {
			p.report(max(second.Line, 1), "", errors.New("a second document begins; allowed is one"))
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	return p.values, p.alerts, p.problems
}

type fileParser struct {
	name     string
	values   map[string]any // by key
	alerts   Section
	problems []*Error
}

// report adds a problem whose text includes the value.
func (p *fileParser) report(line int, key string, err error) {
	p.problems = append(p.problems, &Error{place: place(p.name, line), Setting: key, Err: err, noValue: true})
}

// syntaxError matches an error of the YAML library. Its line is the one where the
// construct with the mistake begins, or the one before the mistake. Some errors have none.
var syntaxError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func (p *fileParser) syntax(err error) {
	line, where, reason := 0, "", err.Error()
	if match := syntaxError.FindStringSubmatch(reason); match != nil {
		reason = match[2]
		if number, err := strconv.Atoi(match[1]); err == nil {
			line, where = number, " in or after this line"
		}
	}
	if strings.HasPrefix(reason, "unknown anchor") {
		reason += "; put text that begins with * in quotes"
	}
	p.report(line, "", fmt.Errorf("it is not valid YAML%s: %s", where, strings.Join(strings.Fields(reason), " ")))
}

func (p *fileParser) mapping(root *yaml.Node) {
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return // an empty document
	}
	if root.Kind != yaml.MappingNode || root.Tag != "!!map" {
		p.report(root.Line, "", fmt.Errorf("it is %s; allowed is one setting a line, such as close_grace: 2s", described(root)))
		return
	}
	lines := map[string]int{}
	for pair := range slices.Chunk(root.Content, 2) {
		key := pair[0]
		if key.Kind != yaml.ScalarNode {
			p.report(key.Line, "", fmt.Errorf("a key is %s; allowed are the names of settings", described(key)))
			continue
		}
		if first, found := lines[key.Value]; found {
			p.report(key.Line, shortened(key.Value), fmt.Errorf("it is given twice, first in line %d; allowed is once", first))
			continue
		}
		lines[key.Value] = key.Line
		p.pair(key, pair[1])
	}
}

// pair checks the value of a key and stores it.
func (p *fileParser) pair(key, node *yaml.Node) {
	if key.Value == AlertsSection {
		p.alerts = Section{File: p.name, Line: key.Line, Node: node}
		return
	}
	at := slices.IndexFunc(table, func(s *setting) bool { return s.key == key.Value })
	if at < 0 {
		text := "no such setting"
		if near := nearestSetting(key.Value); near != nil {
			text += "; did you mean " + near.key + "?"
		} else if Nearest(key.Value, []string{AlertsSection}) != "" {
			text += "; did you mean " + AlertsSection + "?"
		}
		p.report(key.Line, shortened(key.Value), errors.New(text))
		return
	}
	s := table[at]
	if s.flagOnly {
		p.report(key.Line, s.key, fmt.Errorf("it cannot be set in the file; allowed are --%s and %s", s.name, s.variables()))
		return
	}
	items := []*yaml.Node{node}
	if s.list && node.Kind == yaml.SequenceNode && node.Tag == "!!seq" {
		items = node.Content
	}
	before, texts := len(p.problems), make([]string, len(items))
	for i, item := range items {
		texts[i] = item.Value
		if err := s.checkNode(item); err != nil {
			p.report(max(item.Line, key.Line), s.key, err)
		} else if err := s.set(&Settings{}, value{Text: item.Value}); err != nil {
			p.problems = append(p.problems, &Error{place: place(p.name, item.Line), Setting: s.key, Value: s.shown(item.Value), Err: err})
		}
	}
	if len(p.problems) == before {
		p.values[s.key] = value{strings.Join(texts, ","), "file", place(p.name, key.Line)}
	}
}

// textTags are the types of YAML whose text, as written, is the value.
var textTags = []string{"!!str", "!!int", "!!float", "!!timestamp"}

// checkNode checks that a node has the type of the setting.
func (s *setting) checkNode(node *yaml.Node) error {
	allowed := "text"
	switch {
	case s.kind == "":
		allowed = "true and false"
	case s.list:
		allowed = "text and a list of texts"
	}
	switch {
	case node.Kind != yaml.ScalarNode:
		return fmt.Errorf("it is %s; allowed is %s: %s", described(node), allowed, usages[s.name])
	case slices.Contains(textTags, node.Tag), s.kind == "" && node.Tag == "!!bool":
		return nil
	case node.Tag == "!!bool":
		return fmt.Errorf("%s is true or false in YAML; allowed is text, in quotes where it has another meaning: %s", node.Value, usages[s.name])
	case node.Tag == "!!null":
		return fmt.Errorf(`it has no value; leave the key out for the default, or write "" for empty; allowed is %s: %s`, allowed, usages[s.name])
	}
	return fmt.Errorf("%s is a tag of YAML; put text that begins with ! in quotes", shortened(node.Tag))
}

// described names what a node is.
func described(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "the text " + model.Quoted(node.Value)
}

// shortened returns a text of the file in quotes if it does not fit in a line as it is.
func shortened(text string) string {
	if quoted := model.Quoted(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
