package journal

import (
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// maxID is the largest id: SQLite's integers have 63 bits and a sign.
const maxID = math.MaxInt64

// Query selects events. What is zero or empty selects all; all that is set
// must match.
type Query struct {
	// Since is inclusive, Until exclusive.
	Since, Until time.Time
	// AfterID and BeforeID are exclusive; 0: none.
	AfterID, BeforeID uint64
	// Containers are names, names with * ? [a-z] as in [path.Match],
	// project/service, or the first 12 or more hex digits of an id. One of them
	// must match. An event that names no container matches none.
	Containers []string
	// Project is the Compose project.
	Project string
	// Ports and Protocols, of which one must match. A burst of several ports matches
	// every port, since its list may be incomplete, and one of several protocols
	// matches every protocol.
	Ports     []PortRange
	Protocols []model.Protocol
	Types     []model.Type
	Exposures []model.Exposure
	Transient *bool
	// Limit is how many events there are at most; 0: all. They are the last that
	// match, or with FromStart the first. The order is always that of the ids.
	Limit     int
	FromStart bool
}

// PortRange is a range of ports.
type PortRange struct {
	First, Last uint16         // both are in it
	Protocol    model.Protocol // 0: any
}

// Check returns an error that names the field of the query that makes no sense,
// and what is allowed.
func (q *Query) Check() error {
	switch {
	case q.Limit < 0:
		return fmt.Errorf("limit %d: allowed are 1 and more, and 0 for all", q.Limit)
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return fmt.Errorf("since %s is not before until %s", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
	case q.AfterID > maxID || q.BeforeID > maxID:
		return fmt.Errorf("after and before: the largest id is %d", uint64(maxID))
	}
	for _, ports := range q.Ports {
		if ports.First > ports.Last {
			return fmt.Errorf("ports %d-%d: a range goes from the lower to the higher port", ports.First, ports.Last)
		}
	}
	for _, kind := range q.Types {
		if codeOf(types, kind) == 0 {
			return fmt.Errorf("type %q: allowed are %s, %s, %s, %s and %s", kind, model.Opened, model.Closed, model.Changed, model.Bursts, model.Gap)
		}
	}
	for _, exposure := range q.Exposures {
		if codeOf(exposures, exposure) == 0 {
			return fmt.Errorf("exposure %q: allowed are %s, %s, %s and %s", exposure, model.Loopback, model.Network, model.Published, model.Host)
		}
	}
	_, err := parseContainers(q.Containers)
	return err
}

// matcher says whether an event's container is meant.
type matcher func(c *model.ContainerRef) bool

// identifier matches what can only be, or begin, a container's id.
var identifier = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

var errContainer = errors.New("allowed are names, patterns of * ? [a-z], project/service, and ids of 12 hex digits or more")

func parseContainers(words []string) ([]matcher, error) {
	matchers := make([]matcher, 0, len(words))
	for _, word := range words {
		m, err := parseContainer(word)
		if err != nil {
			return nil, fmt.Errorf("container %q: %w", word, err)
		}
		matchers = append(matchers, m)
	}
	return matchers, nil
}

func parseContainer(word string) (matcher, error) {
	if word == "" {
		return nil, errContainer
	}
	// A pattern that is bad is so whatever it is matched with.
	if _, err := path.Match(word, ""); err != nil {
		return nil, fmt.Errorf("%w: %w", errContainer, err)
	}
	matches := func(pattern, name string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	}
	if project, service, both := strings.Cut(word, "/"); both {
		if project == "" || service == "" || strings.Contains(service, "/") {
			return nil, errContainer
		}
		return func(c *model.ContainerRef) bool {
			return c.Project != "" && c.Service != "" && matches(project, c.Project) && matches(service, c.Service)
		}, nil
	}
	return func(c *model.ContainerRef) bool {
		return matches(word, c.Name) || identifier.MatchString(word) && strings.HasPrefix(c.ID, word)
	}, nil
}
