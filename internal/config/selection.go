package config

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"portwatcher/internal/model"
)

// Selection says which containers are monitored. Its zero value selects all
// but those whose label [LabelEnable] excludes them. It is immutable.
type Selection struct {
	include []entry
	exclude []entry
}

// entry is one word of a selection.
type entry struct {
	text    string // as written
	matches func(*model.Container) bool
}

// ParseSelection parses a list separated by commas or blanks:
//
//   - name: a container's name, or its id of 12 digits or more; in a name, *
//     stands for any characters, ? for one, [a-z] for one of a range and
//     [^a-z] for one that is not of it
//   - project/service: the Compose labels, each side as a name
//   - label:key and label:key=value: a label; the value may have the same
//     patterns
//   - ! before an entry excludes, and exclusion wins
//
// No entry means every container; only exclusions mean every one but those.
func ParseSelection(text string) (Selection, error) {
	var selection Selection
	words := strings.FieldsFunc(text, isSeparator)
	for _, word := range words {
		rest, excluded := strings.CutPrefix(word, "!")
		matches, err := parseEntry(rest)
		if err != nil {
			return Selection{}, &entryError{word, err}
		}
		if excluded {
			selection.exclude = append(selection.exclude, entry{text: word, matches: matches})
		} else {
			selection.include = append(selection.include, entry{text: word, matches: matches})
		}
	}
	return selection, nil
}

// identifier matches what can only be, or begin, a container's id.
var identifier = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

func parseEntry(word string) (func(*model.Container) bool, error) {
	if label, found := strings.CutPrefix(word, "label:"); found {
		return parseLabel(label)
	}
	if strings.Contains(word, "/") {
		return parseService(word)
	}
	name, err := parseName(word)
	if err != nil {
		return nil, err
	}
	return func(c *model.Container) bool {
		return name(c.Name) || identifier.MatchString(word) && strings.HasPrefix(c.ID, word)
	}, nil
}

func parseLabel(label string) (func(*model.Container) bool, error) {
	key, value, hasValue := strings.Cut(label, "=")
	if key == "" {
		return nil, fmt.Errorf("allowed are label:key and label:key=value")
	}
	if !hasValue {
		return func(c *model.Container) bool { _, found := c.Labels[key]; return found }, nil
	}
	matches, err := parsePattern(value)
	if err != nil {
		return nil, err
	}
	return func(c *model.Container) bool {
		got, found := c.Labels[key]
		return found && matches(got)
	}, nil
}

func parseService(word string) (func(*model.Container) bool, error) {
	left, right, _ := strings.Cut(word, "/")
	if left == "" || right == "" || strings.Contains(right, "/") {
		return nil, fmt.Errorf("allowed is project/service, with * for any")
	}
	project, err := parseName(left)
	if err != nil {
		return nil, err
	}
	service, err := parseName(right)
	if err != nil {
		return nil, err
	}
	return func(c *model.Container) bool {
		projectLabel, hasProject := c.Labels[model.LabelProject]
		serviceLabel, hasService := c.Labels[model.LabelService]
		return hasProject && hasService && project(projectLabel) && service(serviceLabel)
	}, nil
}

// nameCharacters are those of the names of containers, projects and services,
// and of patterns. A word with another one is a mistake: it matches nothing.
// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
var nameCharacters = regexp.MustCompile(`^[a-zA-Z0-9_.*?[\]^-]+$`)

func parseName(word string) (func(string) bool, error) {
	if !nameCharacters.MatchString(word) {
		return nil, fmt.Errorf("allowed are names of letters, digits, _ . - and patterns of * ? [a-z], project/service, label:key=value, and ! before each")
	}
	return parsePattern(word)
}

// parsePattern translates a pattern to a regular expression, which takes
// linear time whatever the pattern.
func parsePattern(pattern string) (func(string) bool, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return func(text string) bool { return text == pattern }, nil
	}
	var expression strings.Builder
	expression.WriteString(`(?s)^`)
	for rest := pattern; rest != ""; {
		switch at := strings.IndexAny(rest, "*?["); {
		case at < 0:
			expression.WriteString(regexp.QuoteMeta(rest))
			rest = ""
		case at > 0:
			expression.WriteString(regexp.QuoteMeta(rest[:at]))
			rest = rest[at:]
		case rest[0] == '*':
			expression.WriteString(`.*`)
			rest = rest[1:]
		case rest[0] == '?':
			expression.WriteString(`.`)
			rest = rest[1:]
		default:
			class, length, err := parseClass(rest)
			if err != nil {
				return nil, err
			}
			expression.WriteString(class)
			rest = rest[length:]
		}
	}
	compiled, err := regexp.Compile(expression.String() + `$`)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return compiled.MatchString, nil
}

// parseClass translates the class that text begins with, and returns how many
// bytes of text it takes.
func parseClass(text string) (class string, length int, err error) {
	inside, _, closed := strings.Cut(text[1:], "]")
	length = len(inside) + 2
	members, negated := strings.CutPrefix(inside, "^")
	if !closed || members == "" {
		return "", 0, fmt.Errorf("allowed are classes as in [abc], [a-z] and [^a-z]")
	}
	var expression strings.Builder
	expression.WriteByte('[')
	if negated {
		expression.WriteByte('^')
	}
	runes := []rune(members)
	for i := 0; i < len(runes); i++ {
		first, last := runes[i], runes[i]
		if i+2 < len(runes) && runes[i+1] == '-' {
			last = runes[i+2]
			i += 2
		}
		if last < first {
			return "", 0, fmt.Errorf("the range %s is the wrong way round; allowed are ranges from the lower to the higher character, as in [a-z]", quoted(string([]rune{first, '-', last})))
		}
		fmt.Fprintf(&expression, `\x{%x}-\x{%x}`, first, last)
	}
	expression.WriteByte(']')
	return expression.String(), length, nil
}

// Matches tells whether a container is selected. A bad value of the label
// [LabelEnable] counts as none; [Enabled] tells of it.
func (s Selection) Matches(c *model.Container) bool {
	if enabled, err := Enabled(c); err == nil && !enabled {
		return false
	}
	if matchesAny(s.exclude, c) {
		return false
	}
	return len(s.include) == 0 || matchesAny(s.include, c)
}

func matchesAny(entries []entry, c *model.Container) bool {
	for _, e := range entries {
		if e.matches(c) {
			return true
		}
	}
	return false
}

// Unmatched returns the entries that match none of the containers, as they
// were written. Exclusions are not among them.
func (s Selection) Unmatched(containers []*model.Container) []string {
	var unmatched []string
next:
	for _, e := range s.include {
		for _, c := range containers {
			if e.matches(c) {
				continue next
			}
		}
		unmatched = append(unmatched, e.text)
	}
	return unmatched
}

// String returns the form that [ParseSelection] reads.
func (s Selection) String() string {
	words := make([]string, 0, len(s.include)+len(s.exclude))
	for _, e := range s.include {
		words = append(words, e.text)
	}
	for _, e := range s.exclude {
		words = append(words, e.text)
	}
	return strings.Join(words, ",")
}

// isSeparator says what stands between the entries of a list.
func isSeparator(r rune) bool { return r == ',' || unicode.IsSpace(r) }
