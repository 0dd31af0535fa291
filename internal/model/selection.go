package model

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Selection selects containers by the one grammar of every setting, flag and parameter;
// see [ParseSelection]. Its zero value selects every container. It is immutable.
type Selection struct {
	include []entry
	exclude []entry
}

type entry struct {
	text    string // as written
	matches func(*ContainerRef) bool
	// service is the word if it can be a Compose service as well as a name.
	service string
	// host means that it is [HostName].
	host bool
}

// SelectionHelp describes the grammar of [ParseSelection] in the help of flags and settings.
const SelectionHelp = "names, Compose services, project/service, patterns with * ? [a-z], label:key=value, (host) for the host's own ports; ! excludes"

// ParseSelection parses a list separated by commas or blanks:
//
//   - name: a container's name; a Compose service, where no container has that very
//     name; or a container's id, 12 digits or more of it. In a name, * stands for any
//     characters, ? for one, [a-z] for one of a range and [^a-z] for one that is not of
//     it; such a pattern is compared with names only
//   - project/service: the Compose labels, each side as a name
//   - label:key and label:key=value: a label; the value may have the same
//     patterns
//   - (host): what belongs to no container
//   - ! before an entry excludes, and exclusion wins
//
// No entry means everything; exclusions alone mean everything but those. The
// error is an [*EntryError].
func ParseSelection(text string) (Selection, error) {
	var selection Selection
	for _, word := range Words(text) {
		rest, excluded := strings.CutPrefix(word, "!")
		e, err := parseEntry(rest)
		if err != nil {
			return Selection{}, &EntryError{word, err}
		}
		e.text = word
		if excluded {
			selection.exclude = append(selection.exclude, e)
		} else {
			selection.include = append(selection.include, e)
		}
	}
	return selection, nil
}

// identifier matches what can only be, or begin, a container's id.
var identifier = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

func parseEntry(word string) (entry, error) {
	if word == HostName {
		return entry{host: true}, nil
	}
	if label, found := strings.CutPrefix(word, "label:"); found {
		matches, err := parseLabel(label)
		return entry{matches: matches}, err
	}
	if strings.Contains(word, "/") {
		matches, err := parseService(word)
		return entry{matches: matches}, err
	}
	name, err := parseName(word)
	if err != nil {
		return entry{}, err
	}
	e := entry{matches: func(c *ContainerRef) bool {
		return name(c.Name) || identifier.MatchString(word) && strings.HasPrefix(c.ID, word)
	}}
	if !strings.ContainsAny(word, patternCharacters) {
		e.service = word
	}
	return e, nil
}

func parseLabel(label string) (func(*ContainerRef) bool, error) {
	key, value, hasValue := strings.Cut(label, "=")
	if key == "" {
		return nil, errors.New("allowed are label:key and label:key=value")
	}
	if !hasValue {
		return func(c *ContainerRef) bool { _, found := c.Labels[key]; return found }, nil
	}
	matches, err := parsePattern(value)
	if err != nil {
		return nil, err
	}
	return func(c *ContainerRef) bool {
		got, found := c.Labels[key]
		return found && matches(got)
	}, nil
}

func parseService(word string) (func(*ContainerRef) bool, error) {
	left, right, _ := strings.Cut(word, "/")
	if left == "" || right == "" || strings.Contains(right, "/") {
		return nil, errors.New("allowed is project/service, with * for any")
	}
	project, err := parseName(left)
	if err != nil {
		return nil, err
	}
	service, err := parseName(right)
	if err != nil {
		return nil, err
	}
	return func(c *ContainerRef) bool {
		return c.Project != "" && c.Service != "" && project(c.Project) && service(c.Service)
	}, nil
}

// nameCharacters are the characters of the names of containers, projects and services,
// and of patterns. A word with another character could match nothing.
// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
var nameCharacters = regexp.MustCompile(`^[a-zA-Z0-9_.*?[\]^-]+$`)

func parseName(word string) (func(string) bool, error) {
	if !nameCharacters.MatchString(word) {
		return nil, errors.New("allowed are names of letters, digits, _ . - and patterns of * ? [a-z], project/service, label:key=value, (host), and ! before each")
	}
	return parsePattern(word)
}

// patternCharacters begin the parts of a pattern that stand for other characters.
const patternCharacters = "*?["

// parsePattern translates a pattern to a regular expression, which takes
// linear time whatever the pattern.
func parsePattern(pattern string) (func(string) bool, error) {
	if !strings.ContainsAny(pattern, patternCharacters) {
		return func(text string) bool { return text == pattern }, nil
	}
	var expression strings.Builder
	expression.WriteString(`(?s)^`)
	for rest := pattern; rest != ""; {
		switch at := strings.IndexAny(rest, patternCharacters); {
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
		return "", 0, errors.New("allowed are classes as in [abc], [a-z] and [^a-z]")
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
			return "", 0, fmt.Errorf("the range %s is the wrong way round; allowed are ranges from the lower to the higher character, as in [a-z]", Quoted(string([]rune{first, '-', last})))
		}
		fmt.Fprintf(&expression, `\x{%x}-\x{%x}`, first, last)
	}
	expression.WriteByte(']')
	return expression.String(), length, nil
}

// Names reports whether a container has exactly this name. A [Selection] calls it for a
// word that is a Compose service, which may be another container's name.
type Names func(name string) bool

// NamesOf returns the names of some containers.
func NamesOf(containers []*ContainerRef) Names {
	names := make(map[string]bool, len(containers))
	for _, c := range containers {
		names[c.Name] = true
	}
	return func(name string) bool { return names[name] }
}

// Matches reports whether a container is selected, among containers of some names. nil stands
// for what belongs to no container.
func (s Selection) Matches(c *ContainerRef, names Names) bool {
	selects := func(e entry) bool { return e.selects(c, names) }
	return !slices.ContainsFunc(s.exclude, selects) && (len(s.include) == 0 || slices.ContainsFunc(s.include, selects))
}

// MatchesAny is Matches for a container that has had several names, of which each may
// select or exclude it.
func (s Selection) MatchesAny(refs []*ContainerRef, names Names) bool {
	selects := func(e entry) bool {
		return slices.ContainsFunc(refs, func(c *ContainerRef) bool { return e.selects(c, names) })
	}
	return !slices.ContainsFunc(s.exclude, selects) && (len(s.include) == 0 || slices.ContainsFunc(s.include, selects))
}

func (e *entry) selects(c *ContainerRef, names Names) bool {
	if e.host || c == nil {
		return e.host && c == nil
	}
	return e.matches(c) || e.service != "" && e.service == c.Service && !names(e.service)
}

// DependsOn reports whether what is selected may depend on whether a container of this
// name exists.
func (s Selection) DependsOn(name string) bool {
	return slices.ContainsFunc(slices.Concat(s.include, s.exclude), func(e entry) bool { return e.service == name })
}

// Empty reports whether the selection selects every container.
func (s Selection) Empty() bool { return len(s.include)+len(s.exclude) == 0 }

// NamesHost reports whether (host) is one of the entries that select.
func (s Selection) NamesHost() bool {
	return slices.ContainsFunc(s.include, func(e entry) bool { return e.host })
}

// Unmatched returns the entries that match none of the containers, as they
// were written. Exclusions are not among them.
func (s Selection) Unmatched(containers []*ContainerRef) []string {
	names := NamesOf(containers)
	var unmatched []string
	for _, e := range s.include {
		if !e.host && !slices.ContainsFunc(containers, func(c *ContainerRef) bool { return e.selects(c, names) }) {
			unmatched = append(unmatched, e.text)
		}
	}
	return unmatched
}

// String returns the form that [ParseSelection] reads.
func (s Selection) String() string {
	words := make([]string, 0, len(s.include)+len(s.exclude))
	for _, e := range slices.Concat(s.include, s.exclude) {
		words = append(words, e.text)
	}
	return strings.Join(words, ",")
}

// Words splits a list whose entries are separated by commas or blanks.
func Words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// EntryError reports which entry of a list is wrong. Its text is one line.
type EntryError struct {
	Entry string
	Err   error // what is wrong, or what is allowed
}

// Error implements error.
func (e *EntryError) Error() string { return "entry " + Quoted(e.Entry) + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *EntryError) Unwrap() error { return e.Err }

// maxQuoted is how many bytes of a value an error shows.
const maxQuoted = 300

// Quoted returns a value in quotes, shortened to what fits in a line.
func Quoted(value string) string {
	if len(value) > maxQuoted {
		return strconv.Quote(strings.ToValidUTF8(value[:maxQuoted], "")) + "..."
	}
	return strconv.Quote(value)
}
