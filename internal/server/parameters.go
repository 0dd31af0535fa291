package server

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
	"portwatcher/internal/when"
)

// maxValues bounds the values of one list in a query, and maxPatterns the entries that are
// compared with the names of containers.
const (
	maxValues   = 100
	maxPatterns = 32
)

// maxID is the highest id that the journal can keep: SQLite's integers are signed.
const maxID = math.MaxInt64

// parameters are the query of a request. The error is the first parameter that is wrong.
type parameters struct {
	values url.Values
	now    time.Time
	err    *api.Problem
}

// parseParameters refuses parameters that the route does not have.
func parseParameters(r *http.Request, allowed []string) (*parameters, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, fmt.Sprintf("the query is invalid: %v; allowed is name=value&name=value, with %%XX for other characters", err))
	}
	for name := range values {
		if slices.Contains(allowed, name) {
			continue
		}
		list := "none"
		if len(allowed) > 0 {
			list = strings.Join(allowed, ", ")
		}
		p := badParameter(name, strings.Join(values[name], ","), "")
		p.Detail = fmt.Sprintf("there is no parameter %q here: allowed are %s", name, list)
		p.Parameter = strings.ToValidUTF8(name, "\uFFFD")
		p.Allowed = allowed
		return nil, p
	}
	return &parameters{values: values, now: time.Now()}, nil
}

func (p *parameters) problem() error {
	if p.err == nil {
		return nil // not a nil *Problem in an interface
	}
	return p.err
}

func (p *parameters) wrong(name, value, allowed string) {
	if p.err == nil {
		p.err = badParameter(name, value, allowed)
	}
}

// listOf parses values that may be repeated, or separated by commas.
func listOf[T any](p *parameters, name, allowed string, parse func(string) (T, error)) []T {
	var parsed []T
	for _, value := range p.values[name] {
		for word := range strings.SplitSeq(value, ",") {
			word = strings.TrimSpace(word)
			if word == "" {
				continue
			}
			value, err := parse(word)
			switch {
			case err != nil:
				p.wrong(name, word, allowed)
				return nil
			case len(parsed) == maxValues:
				p.wrong(name, word, fmt.Sprintf("at most %d values", maxValues))
				return nil
			}
			parsed = append(parsed, value)
		}
	}
	return parsed
}

// single parses a value that may be given once. An empty value counts as not given.
func single[T any](p *parameters, name, allowed string, parse func(string) (T, bool)) (value T, given bool) {
	values := p.values[name]
	switch {
	case len(values) > 1:
		p.wrong(name, strings.Join(values, ","), allowed+", once")
		return value, false
	case len(values) == 0 || values[0] == "":
		return value, false
	}
	parsed, ok := parse(values[0])
	if !ok {
		p.wrong(name, values[0], allowed)
		return value, false
	}
	return parsed, true
}

// time parses a time, or how long ago it was. It returns zero only where it is not given: the
// first moment of time is a nanosecond later.
func (p *parameters) time(name string) time.Time {
	const allowed = "times such as 2026-11-22T18:36:28Z (RFC 3339) and times ago such as 90s, 15m, 1h, 7d, 2w"
	t, given := single(p, name, allowed, func(text string) (time.Time, bool) {
		if ago, err := when.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
			return p.now.Add(-ago).UTC(), true
		}
		// In a query a + that is not escaped is a blank.
		t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1))
		return t.UTC(), err == nil
	})
	if given && t.IsZero() {
		t = t.Add(1)
	}
	return t
}

func (p *parameters) duration(name string, most time.Duration) (d time.Duration, given bool) {
	return single(p, name, fmt.Sprintf("0 to %s, with a unit as in 500ms or 30s", most), func(text string) (time.Duration, bool) {
		d, err := time.ParseDuration(text)
		return d, err == nil && d >= 0 && d <= most
	})
}

func (p *parameters) id(name string) (id uint64, given bool) {
	return single(p, name, "ids of events, 0 to 9223372036854775807", parseID)
}

func parseID(text string) (id uint64, ok bool) {
	id, err := strconv.ParseUint(text, 10, 64)
	return id, err == nil && id <= maxID
}

func (p *parameters) count(name string, standard, most int) int {
	number, given := single(p, name, fmt.Sprintf("1 to %d", most), func(text string) (int, bool) {
		number, err := strconv.Atoi(text)
		return number, err == nil && number >= 1 && number <= most
	})
	if !given {
		return standard
	}
	return number
}

// containerCount parses in how many containers a port has to be open.
func (p *parameters) containerCount() (count model.Count, given bool) {
	return single(p, "count", "1 to 10000 and all", func(text string) (model.Count, bool) {
		count, err := model.ParseCount(text)
		return count, err == nil
	})
}

// truth parses true or false. It returns nil where it is not given.
func (p *parameters) truth(name string) *bool {
	value, given := single(p, name, "true, false", func(text string) (bool, bool) { return text == "true", text == "true" || text == "false" })
	if !given {
		return nil
	}
	return &value
}

// projects matches the names of Compose projects.
// Source: https://docs.docker.com/compose/how-tos/project-name/.
var projects = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

func (p *parameters) project() string {
	name, _ := single(p, "project", "names of letters, digits, _ . -", func(text string) (string, bool) { return text, projects.MatchString(text) })
	return name
}

// containers parses the selection of containers, by both names of the parameter.
func (p *parameters) containers() model.Selection {
	var words []string
	for _, name := range []string{"container", "name"} {
		its := model.Words(strings.Join(p.values[name], ","))
		if room := max(maxPatterns-len(words), 0); len(its) > room {
			p.wrong(name, its[room], fmt.Sprintf("at most %d values", maxPatterns))
		}
		if _, err := model.ParseSelection(strings.Join(its, ",")); err != nil {
			p.wrongEntry(name, err)
		}
		words = append(words, its...)
	}
	selection, _ := model.ParseSelection(strings.Join(words, ",")) // the loop has reported its error
	return selection
}

func (p *parameters) ports() model.PortSet {
	words := model.Words(strings.Join(p.values["port"], ","))
	if len(words) > maxValues {
		p.wrong("port", words[maxValues], fmt.Sprintf("at most %d values", maxValues))
	}
	ports, err := model.ParsePorts(strings.Join(words, ","))
	if err != nil {
		p.wrongEntry("port", err)
	}
	return ports
}

// wrongEntry reports the error of a list.
func (p *parameters) wrongEntry(name string, err error) {
	entry, reason := "", err.Error()
	if wrong, ok := errors.AsType[*model.EntryError](err); ok {
		entry, reason = wrong.Entry, wrong.Err.Error()
	}
	if p.err == nil {
		p.err = wrongParameter(name, entry, reason)
	}
}

// filter parses the parameters that select endpoints and events. A parameter that the route does
// not have is not given.
func (p *parameters) filter() model.Filter {
	return model.Filter{
		Containers: p.containers(),
		Project:    p.project(),
		Protocols:  listOf(p, "protocol", "tcp, udp", parseProtocol),
		Ports:      p.ports(),
		Exposures:  listOf(p, "exposure", join(model.Exposures), model.ParseExposure),
		Outside:    p.truth("outside"),
		Drifts:     listOf(p, "drift", join(model.Drifts), model.ParseDrift),
		Types:      listOf(p, "type", join(model.Types), model.ParseType),
		Transient:  p.truth("transient"),
	}
}

func parseProtocol(word string) (p model.Protocol, err error) {
	err = p.UnmarshalText([]byte(word))
	return p, err
}

func join[T ~string](words []T) string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return strings.Join(texts, ", ")
}
