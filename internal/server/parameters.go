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

// maxValues bounds the values of one list in a query, and maxPatterns those that
// are compared with the names of containers.
const (
	maxValues   = 100
	maxPatterns = 32
)

// parameters are the query of a request. The first that is wrong is the error.
type parameters struct {
	values url.Values
	now    time.Time
	err    *api.Problem
}

// parseParameters takes only the parameters that the route knows.
func parseParameters(r *http.Request, allowed []string) (*parameters, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(http.StatusBadRequest, fmt.Sprintf("the query is not understood: %v; allowed is name=value&name=value, with %%XX for other characters", err))
	}
	for name := range values {
		if slices.Contains(allowed, name) {
			continue
		}
		list := "none"
		if len(allowed) > 0 {
			list = strings.Join(allowed, ", ")
		}
		p := badParameter(name, strings.Join(values[name], ","), "the parameters "+list)
		p.Detail = fmt.Sprintf("there is no parameter %q here: allowed are %s", p.Parameter, list)
		p.Parameter = strings.ToValidUTF8(p.Parameter, "\uFFFD")
		p.Allowed = allowed
		return nil, p
	}
	return &parameters{values: values, now: time.Now()}, nil
}

// problem returns the first that is wrong, as an error.
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

// list parses values that may be repeated, or separated by commas.
func list[T any](p *parameters, name, allowed string, parse func(string) (T, bool)) []T {
	var parsed []T
	for _, value := range p.values[name] {
		for word := range strings.SplitSeq(value, ",") {
			word = strings.TrimSpace(word)
			if word == "" {
				continue
			}
			one, ok := parse(word)
			switch {
			case !ok:
				p.wrong(name, word, allowed)
				return nil
			case len(parsed) == maxValues:
				p.wrong(name, word, fmt.Sprintf("at most %d values", maxValues))
				return nil
			}
			parsed = append(parsed, one)
		}
	}
	return parsed
}

// single returns a value that may be given once; empty counts as not given.
func (p *parameters) single(name, allowed string) (value string, given bool) {
	values := p.values[name]
	if len(values) > 1 {
		p.wrong(name, strings.Join(values, ","), allowed+", once")
		return "", false
	}
	if len(values) == 0 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

const allowedTimes = "times such as 2026-11-22T18:36:28Z (RFC 3339) and times ago such as 90s, 15m, 1h, 7d, 2w"

// time parses a time, or how long ago it was.
func (p *parameters) time(name string) time.Time {
	value, given := p.single(name, allowedTimes)
	if !given {
		return time.Time{}
	}
	if ago, err := when.ParseDuration(strings.TrimPrefix(value, "-")); err == nil {
		return p.now.Add(-ago).UTC()
	}
	// In a query a + that is not escaped is a blank.
	t, err := time.Parse(time.RFC3339Nano, strings.Replace(value, " ", "+", 1))
	if err != nil {
		p.wrong(name, value, allowedTimes)
		return time.Time{}
	}
	return t.UTC()
}

// duration parses a duration within bounds.
func (p *parameters) duration(name string, most time.Duration) (d time.Duration, given bool) {
	allowed := fmt.Sprintf("0 to %s, with a unit as in 500ms or 30s", most)
	value, given := p.single(name, allowed)
	if !given {
		return 0, false
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > most {
		p.wrong(name, value, allowed)
		return 0, false
	}
	return d, true
}

// maxID is the highest id that the journal can keep: SQLite's integers are
// signed.
const maxID = math.MaxInt64

// id parses the id of an event.
func (p *parameters) id(name string) (id uint64, given bool) {
	const allowed = "ids of events, 0 to 9223372036854775807"
	value, given := p.single(name, allowed)
	if !given {
		return 0, false
	}
	id, err := strconv.ParseUint(value, 10, 64)
	if err != nil || id > maxID {
		p.wrong(name, value, allowed)
		return 0, false
	}
	return id, true
}

// count parses a number from 1 to most.
func (p *parameters) count(name string, standard, most int) int {
	allowed := fmt.Sprintf("1 to %d", most)
	value, given := p.single(name, allowed)
	if !given {
		return standard
	}
	number, err := strconv.Atoi(value)
	if err != nil || number < 1 || number > most {
		p.wrong(name, value, allowed)
		return standard
	}
	return number
}

// truth parses true or false; nil is not given.
func (p *parameters) truth(name string) *bool {
	const allowed = "true, false"
	value, given := p.single(name, allowed)
	if !given {
		return nil
	}
	yes := value == "true"
	if !yes && value != "false" {
		p.wrong(name, value, allowed)
		return nil
	}
	return &yes
}

// projects matches the names of Compose projects.
// Source: https://docs.docker.com/compose/how-tos/project-name/.
var projects = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

// project parses the name of a Compose project.
func (p *parameters) project() string {
	const allowed = "names of letters, digits, _ . -"
	value, given := p.single("project", allowed)
	if given && !projects.MatchString(value) {
		p.wrong("project", value, allowed)
	}
	return value
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
	selection, _ := model.ParseSelection(strings.Join(words, ",")) // its error is known by now
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

// wrongEntry takes the error of a list.
func (p *parameters) wrongEntry(name string, err error) {
	entry, reason := "", err.Error()
	if wrong, ok := errors.AsType[*model.EntryError](err); ok {
		entry, reason = wrong.Entry, wrong.Err.Error()
	}
	if p.err == nil {
		p.err = wrongParameter(name, entry, reason)
	}
}

// filter parses what selects endpoints and events. A parameter that the route
// does not know is not given.
func (p *parameters) filter() model.Filter {
	return model.Filter{
		Containers: p.containers(),
		Project:    p.project(),
		Protocols:  list(p, "protocol", "tcp, udp", parseProtocol),
		Ports:      p.ports(),
		Exposures:  list(p, "exposure", join(model.Exposures), known(model.ParseExposure)),
		Types:      list(p, "type", join(model.Types), known(model.ParseType)),
		Transient:  p.truth("transient"),
	}
}

func parseProtocol(word string) (model.Protocol, bool) {
	var p model.Protocol
	err := p.UnmarshalText([]byte(word))
	return p, err == nil
}

func known[T any](parse func(string) (T, error)) func(string) (T, bool) {
	return func(word string) (T, bool) {
		value, err := parse(word)
		return value, err == nil
	}
}

func join[T ~string](words []T) string {
	texts := make([]string, len(words))
	for i, word := range words {
		texts[i] = string(word)
	}
	return strings.Join(texts, ", ")
}
