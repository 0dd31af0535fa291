package alert

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"

	"portwatcher/internal/model"
	"portwatcher/internal/when"
)

// Problem is one mistake in the settings of alerts. Its text names the file, the line, the
// entry, the field, and what is allowed; it may have several lines, of which the later ones
// point into an expression.
type Problem struct {
	// Place is "file:line"; empty where the value is in no file.
	Place string
	// Entry is where the value is, as "alerts.rules[0] (widened).when".
	Entry string
	Err   error
}

// Error implements error.
func (p *Problem) Error() string {
	text := p.Entry + ": " + p.Err.Error()
	if p.Place != "" {
		text = p.Place + ": " + text
	}
	return text
}

// Unwrap returns the reason.
func (p *Problem) Unwrap() error { return p.Err }

// decoder fills structs from YAML, strictly: an unknown key and a value of another type are
// problems. The names of fields are in their yaml tags.
type decoder struct {
	file     string
	lines    map[string]int // of each value, by its path
	names    map[string]string
	problems []error
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, lines: map[string]int{}, names: map[string]string{}}
}

// report adds a problem of the value at path, or of what contains it.
func (d *decoder) report(path string, err error) {
	p := &Problem{Entry: d.entry(path), Err: err}
	if d.file != "" {
		p.Place = d.file
		for at := path; at != ""; at = parent(at) {
			if line := d.lines[at]; line > 0 {
				p.Place += ":" + strconv.Itoa(line)
				break
			}
		}
	}
	d.problems = append(d.problems, p)
}

// parent returns the path of what contains a value.
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// entry returns a path for people: entries of lists have their names.
func (d *decoder) entry(path string) string {
	for at := path; at != ""; at = parent(at) {
		if name := d.names[at]; name != "" {
			return at + " (" + name + ")" + path[len(at):]
		}
	}
	return path
}

// value decodes a node. Aliases of YAML are followed.
func (d *decoder) value(node *yaml.Node, into reflect.Value, path string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	d.lines[path] = node.Line
	switch target := into.Addr().Interface().(type) {
	case *time.Duration:
		d.duration(node, target, path)
		return
	case encoding.TextUnmarshaler:
		if text, ok := d.text(node, path); ok {
			if err := target.UnmarshalText([]byte(text)); err != nil {
				d.report(path, err)
			}
		}
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.value(node, into.Elem(), path)
	case reflect.Struct:
		d.mapping(node, into, path)
	case reflect.Slice:
		d.list(node, into, path)
	case reflect.Map:
		d.texts(node, into, path)
	case reflect.String:
		if text, ok := d.text(node, path); ok {
			into.SetString(text)
		}
	case reflect.Bool:
		if err := node.Decode(into.Addr().Interface()); err != nil || node.Tag != "!!bool" {
			d.report(path, fmt.Errorf("it is %s; allowed are true and false", described(node)))
		}
	case reflect.Int:
		number, err := strconv.Atoi(node.Value)
		if node.Kind != yaml.ScalarNode || err != nil {
			d.report(path, fmt.Errorf("it is %s; allowed is a whole number", described(node)))
		}
		into.SetInt(int64(number))
	default:
		panic("alert: a setting of the type " + into.Type().String())
	}
}

// textTags are the types of YAML whose text, as written, is the value.
var textTags = []string{"!!str", "!!int", "!!float", "!!timestamp"}

func (d *decoder) text(node *yaml.Node, path string) (string, bool) {
	if node.Kind != yaml.ScalarNode || !slices.Contains(textTags, node.Tag) {
		d.report(path, fmt.Errorf("it is %s; allowed is text, in quotes where YAML gives it another meaning", described(node)))
		return "", false
	}
	return node.Value, true
}

func (d *decoder) duration(node *yaml.Node, into *time.Duration, path string) {
	text, ok := d.text(node, path)
	if !ok {
		return
	}
	value, err := when.ParseDuration(text)
	if err != nil && text != "0" {
		d.report(path, fmt.Errorf("%s: allowed is a duration with its unit, as in 10s, 5m, 24h and 7d", model.Quoted(text)))
	}
	*into = value
}

func (d *decoder) mapping(node *yaml.Node, into reflect.Value, path string) {
	fields := map[string]int{}
	var names []string
	for i := range into.NumField() {
		if name, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			fields[name] = i
			names = append(names, name)
		}
	}
	if node.Kind != yaml.MappingNode {
		d.report(path, fmt.Errorf("it is %s; allowed is a mapping with %s", described(node), strings.Join(names, ", ")))
		return
	}
	for pair := range slices.Chunk(node.Content, 2) {
		if pair[0].Value == "name" && pair[1].Kind == yaml.ScalarNode {
			d.names[path] = pair[1].Value
		}
	}
	given := map[string]bool{}
	for pair := range slices.Chunk(node.Content, 2) {
		key := pair[0].Value
		at, known := fields[key]
		here := path + "." + key
		d.lines[here] = pair[0].Line
		switch {
		case !known || pair[0].Kind != yaml.ScalarNode:
			text := "there is no such field; allowed are " + strings.Join(names, ", ")
			if near := nearest(key, names); near != "" {
				text += "; did you mean " + near + "?"
			}
			d.report(here, errors.New(text))
		case given[key]:
			d.report(here, errors.New("it is given twice; allowed is once"))
		default:
			given[key] = true
			d.value(pair[1], into.Field(at), here)
		}
	}
}

// list decodes a list. A text alone is a list of one text.
func (d *decoder) list(node *yaml.Node, into reflect.Value, path string) {
	if node.Kind == yaml.ScalarNode && node.Tag != "!!null" && into.Type().Elem().Kind() == reflect.String {
		node = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{node}, Line: node.Line}
	}
	if node.Kind != yaml.SequenceNode {
		d.report(path, fmt.Errorf("it is %s; allowed is a list", described(node)))
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		d.value(item, into.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoder) texts(node *yaml.Node, into reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		d.report(path, fmt.Errorf("it is %s; allowed is a mapping of texts", described(node)))
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for pair := range slices.Chunk(node.Content, 2) {
		if text, ok := d.text(pair[1], path+"."+pair[0].Value); ok {
			into.SetMapIndex(reflect.ValueOf(pair[0].Value), reflect.ValueOf(text))
		}
	}
}

// described names what a node is, without its text: it may be a secret.
func described(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch node.Tag {
	case "!!null":
		return "empty"
	case "!!bool":
		return "true or false"
	}
	return "a text"
}

// nearest returns the word that a name was probably meant to be; empty for none.
func nearest(name string, words []string) string {
	if len(name) > 100 { // the time is quadratic
		return ""
	}
	distance := func(word string) int { return levenshtein.Distance(name, word, nil) }
	if len(words) == 0 {
		return ""
	}
	near := slices.MinFunc(words, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	allowed := max(len(name)/3, 2)
	if len(name) < 4 {
		allowed = 1
	}
	if distance(near) > allowed {
		return ""
	}
	return near
}
