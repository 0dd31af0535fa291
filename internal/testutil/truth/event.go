package truth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// Event is one line of portwatcher's JSON events.
type Event struct {
	model.Event
	// Line is the event as it was printed, without the line feed.
	Line string `json:"-"`
}

// Endpoint is the event's endpoint.
func (e *Event) Endpoint() model.Endpoint {
	return e.Event.Endpoint()
}

// ofOneEndpoint reports whether the event is what happened to one endpoint: a gap, a burst and a
// drift are not.
func (e *Event) ofOneEndpoint() bool {
	return e.Type != model.Gap && e.Type != model.Bursts && e.Type != model.Drifted
}

// OfOtherConsumer reports whether the event is a gap of the journal and not of standard
// output.
func (e *Event) OfOtherConsumer() bool {
	return e.Type == model.Gap && strings.Contains(e.Reason, "missing from the journal")
}

// Parse reads one line, and returns an error where it breaks the contract of the
// design. Now is when the line was read. An event of the host's own ports does, which are
// reported only where that is asked for; see [Reader].
func Parse(line string, now time.Time) (Event, error) { return parse(line, now, false) }

func parse(line string, now time.Time, host bool) (Event, error) {
	event := Event{Line: strings.TrimSuffix(line, "\n")}
	if err := json.Unmarshal([]byte(line), &event); err != nil {
		return event, fmt.Errorf("not a JSON event: %w", err)
	}
	age := now.Sub(event.Time)
	switch {
	case event.Type == model.Gap:
		if event.Reason == "" {
			return event, errors.New("a gap without a reason")
		}
		return event, nil
	case event.Type == model.Drifted:
		return event, event.checkDrift()
	case event.Ended || event.Drift == model.DriftMissing || event.Drift == model.DriftUncovered:
		return event, errors.New("ended, or a drift that no endpoint has")
	case event.Container == nil && host:
		if event.Exposure != model.Host && event.Exposure != model.Loopback && event.Type != model.Bursts {
			return event, errors.New("a port of the host that is neither host nor loopback")
		}
	case event.Container == nil || len(event.Container.ID) != 64 || event.Container.Name == "":
		return event, errors.New("no container, or an incomplete one")
	case event.Forward != nil:
		return event, errors.New("a container's port with a forward")
	}
	switch {
	case event.Host == "" || event.Source == "" || !strings.Contains(line, `"transient":`):
		return event, errors.New("no host, source or transient")
	case event.Type == model.Bursts:
		return event, event.checkBurst()
	case event.Type != model.Opened && event.Type != model.Closed && event.Type != model.Changed:
		return event, errors.New("an unknown type")
	// The networks of a container that ended before it could be inspected are
	// unknown. Only eBPF reports such a container's ports.
	case event.Protocol == 0 || !event.Address.IsValid() || event.Port == 0 || event.Exposure == "" && event.Source != model.SourceEBPF:
		return event, errors.New("no protocol, address, port or exposure")
	case (event.Exposure == "") != (event.Outside == nil):
		return event, errors.New("only one of exposure and outside")
	case (event.Type == model.Changed) != (event.Change != ""):
		return event, errors.New("a changed event without change, or change in another one")
	case event.Change == model.ChangeExposure && event.Exposure == event.PreviousExposure && slices.Equal(event.Published, event.PreviousPublished):
		return event, errors.New("a change of the exposure that changes nothing")
	case event.Change == model.ChangeForward && event.Forward.Equal(event.PreviousForward):
		return event, errors.New("a change of the forward that changes nothing")
	case age < -time.Second || age > time.Hour || event.Time.Location() != time.UTC:
		return event, fmt.Errorf("its time is %v ago, or not UTC", age)
	// It is unknown when a transient opened, nor how long something was open that
	// closed while portwatcher did not run.
	case event.Type == model.Closed && !event.Transient && (event.OpenedAt.IsZero() || event.OpenSeconds == nil && event.Source != model.SourceRestart):
		return event, errors.New("closed without opened_at or open_seconds")
	}
	return event, nil
}

// checkDrift checks a drift event: a target that was not seen running has no id.
func (e *Event) checkDrift() error {
	ofEndpoint := e.Drift != model.DriftMissing && e.Drift != model.DriftUncovered
	switch {
	case !slices.Contains(model.Drifts, e.Drift) || e.Container == nil || e.Container.Name == "" || e.Host == "":
		return errors.New("a drift without a kind, a container or a host")
	case ofEndpoint != e.Address.IsValid() || ofEndpoint && (e.Port == 0 || len(e.Container.ID) != 64):
		return errors.New("a drift of an endpoint without the endpoint, or another with one")
	case (e.Port == 0) != (e.Drift == model.DriftUncovered):
		return errors.New("a drift without a port, or an uncovered container with one")
	}
	return nil
}

func (e *Event) checkBurst() error {
	b := e.Burst
	switch {
	case b == nil || b.Opened+b.Closed == 0:
		return errors.New("a burst that counts nothing")
	case b.First.IsZero() || b.First.After(b.Last) || b.First.Location() != time.UTC || b.Last.Location() != time.UTC:
		return errors.New("a burst without first and last, or their order is wrong")
	case len(b.Ports) > model.MaxBurstPorts || len(b.Ports) > b.PortCount ||
		!slices.IsSorted(b.Ports) || len(slices.Compact(slices.Clone(b.Ports))) != len(b.Ports):
		return errors.New("the ports of a burst are not distinct, not in order, too many, or more than port_count")
	case e.Port != 0 && b.PortCount != 1:
		return errors.New("a burst of one port and of several")
	}
	return nil
}

// Reader parses the many lines of a storm in little time: of openings and closings that
// differ in nothing but their ids and times, only the first is decoded. The others have
// its OpenedAt and OpenSeconds. The zero value is ready.
type Reader struct {
	// Host accepts the host's own ports.
	Host    bool
	decoded map[string]Event
}

// Read is [Parse] of the next line.
func (r *Reader) Read(line string) (Event, error) {
	line = strings.TrimSuffix(line, "\n")
	if strings.Contains(line, `"drift":`) {
		return Parse(line, time.Now())
	}
	head, rest, _ := strings.Cut(line, `,"type":`)
	shape, _, _ := strings.Cut(rest, `,"opened_at":`)
	event, found := r.decoded[shape]
	if !found {
		event, err := parse(line, time.Now(), r.Host)
		if err == nil && (event.Type == model.Opened || event.Type == model.Closed) {
			if r.decoded == nil {
				r.decoded = map[string]Event{}
			}
			r.decoded[shape] = event
		}
		return event, err
	}
	number, stamp, _ := strings.Cut(strings.TrimPrefix(head, `{"id":`), `,"time":`)
	var idErr, timeErr error
	event.ID, idErr = strconv.ParseUint(number, 10, 64)
	event.Time, timeErr = time.Parse(time.RFC3339Nano, strings.Trim(stamp, `"`))
	event.Line = line
	return event, errors.Join(idErr, timeErr)
}
