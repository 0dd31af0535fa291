package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"portwatcher/internal/model"

	"go.yaml.in/yaml/v3"
)

// maxFileSize is 1 MiB: settings take some kilobytes.
const maxFileSize = 1 << 20

// file is what a file says: values that were checked, by the setting's name.
type file struct {
	name   string
	values map[string]fileValue
}

// fileValue is a value in the form of a flag. Its line counts from 1.
type fileValue struct {
	text string
	line int
}

// readFile returns the content of a file, or nil if it does not exist and need
// not.
func readFile(name string, required bool) ([]byte, error) {
	// Opening a named pipe would wait for its writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, nil
	}
	const allowed = "; allowed is a YAML file that portwatcher can read, and empty for none"
	if err != nil {
		return nil, fmt.Errorf("%w"+allowed, reason(err))
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w"+allowed, reason(err))
	}
	if !info.Mode().IsRegular() {
		what := "not a regular file"
		if info.IsDir() {
			what = "a folder"
		}
		return nil, errors.New("it is " + what + allowed)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("%w"+allowed, reason(err))
	}
	if len(content) > maxFileSize {
		return nil, errors.New("it is too large; allowed is up to 1 MiB")
	}
	return content, nil
}

// reason returns an error without the path, which the caller names.
func reason(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

// parseFile checks a file and returns what it says, and all that is wrong with
// it. It fails for broken YAML at the first place.
func parseFile(name string, content []byte) (file, []*Error) {
	p := fileParser{file: file{name: name, values: map[string]fileValue{}}}
	root, second, err := documents(content)
	if err != nil {
		p.report(brokenLine(content), "", broken(err))
		return p.file, p.problems
	}
	if root != nil {
		p.mapping(root)
	}
	if second > 0 {
		p.report(second, "", errors.New("a second document begins; allowed is one"))
	}
	return p.file, p.problems
}

// documents returns the root of the first document, nil where there is none,
// and the line of the second, 0 where there is none.
func documents(content []byte) (root *yaml.Node, second int, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return root, second, nil
		}
		if err != nil {
			return nil, 0, err
		}
		switch {
		case root == nil && len(document.Content) > 0:
			root = document.Content[0]
		case second == 0:
			second = max(document.Line, 1)
		}
	}
}

type fileParser struct {
	file
	problems []*Error
}

// report adds a problem that needs no value to be understood.
func (p *fileParser) report(line int, key string, err error) {
	p.problems = append(p.problems, &Error{File: p.name, Line: line, Setting: key, Err: err, without: true})
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
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			p.report(key.Line, "", fmt.Errorf("a key is %s; allowed are the names of settings", described(key)))
			continue
		}
		if first, twice := lines[key.Value]; twice {
			p.report(key.Line, shortened(key.Value), fmt.Errorf("it is given twice, first in line %d; allowed is once", first))
		} else {
			lines[key.Value] = key.Line
			p.pair(key, value)
		}
	}
}

// pair checks a value and keeps it.
func (p *fileParser) pair(key, value *yaml.Node) {
	at := slices.IndexFunc(table, func(s *setting) bool { return s.key() == key.Value })
	if at < 0 {
		keys := make([]string, 0, len(table))
		for _, s := range table {
			if !s.outside {
				keys = append(keys, s.key())
			}
		}
		p.report(key.Line, shortened(key.Value), errors.New(unknown("no such setting", strings.ToLower(key.Value), "", keys)))
		return
	}
	s := table[at]
	if s.outside {
		p.report(key.Line, key.Value, fmt.Errorf("it cannot be set in the file; allowed are --%s and %s", s.name, s.variables()))
		return
	}
	items := []*yaml.Node{value}
	if s.list && value.Kind == yaml.SequenceNode && value.Tag == "!!seq" {
		items = value.Content
	}
	texts, before := make([]string, 0, len(items)), len(p.problems)
	for _, item := range items {
		if problem := s.decode(item); problem != nil {
			p.report(max(item.Line, key.Line), s.key(), problem)
			continue
		}
		if err := s.apply(&Settings{}, item.Value, s.set); err != nil {
			p.problems = append(p.problems, &Error{File: p.name, Line: item.Line, Setting: s.key(), Value: s.shown(item.Value), Err: err})
		}
		texts = append(texts, item.Value)
	}
	if len(p.problems) == before {
		p.values[s.name] = fileValue{text: strings.Join(texts, ","), line: key.Line}
	}
}

// textTags are the types of YAML of which the text counts, as it is written.
var textTags = []string{"!!str", "!!int", "!!float", "!!timestamp"}

// decode checks that a node is of the setting's type.
func (s *setting) decode(node *yaml.Node) error {
	allowed := "text"
	switch {
	case s.kind == "":
		allowed = "true and false"
	case s.list:
		allowed = "text and a list of texts"
	}
	if node.Kind != yaml.ScalarNode {
		return fmt.Errorf("it is %s; allowed is %s: %s", described(node), allowed, s.usage)
	}
	if slices.Contains(textTags, node.Tag) {
		return nil
	}
	switch node.Tag {
	case "!!bool":
		if s.kind == "" {
			return nil
		}
		return fmt.Errorf("%s is true or false in YAML; allowed is text, in quotes where it has another meaning: %s", node.Value, s.usage)
	case "!!null":
		return fmt.Errorf(`it has no value; leave the key out for the default, or write "" for empty; allowed is %s: %s`, allowed, s.usage)
	}
	return fmt.Errorf("%s is a tag of YAML; put text that begins with ! in quotes", shortened(node.Tag))
}

// described says what a node is.
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

// shortened returns a text that came from the file without what does not fit in
// a line.
func shortened(text string) string {
	if quoted := model.Quoted(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
