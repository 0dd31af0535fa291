package journal

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"time"

	"portwatcher/internal/model"
)

// origin is the host and the container of events and states: a row of origins.
type origin struct {
	host      string
	container *model.ContainerRef // nil where the events name none
}

// id returns the id of the container, "" where the events name none. A target that was not seen
// running has none, and is what no id is.
func (o *origin) id() string {
	if o.container == nil {
		return ""
	}
	if o.container.ID == "" {
		return "target " + o.container.Name
	}
	return o.container.ID
}

// encodeProcesses returns processes as a JSON column: an array of [pid, container pid,
// uid or null, name, executable, and the arguments where there are any], because the names
// of the fields would take half the space of an event.
func encodeProcesses(processes []model.Process) (text any, err error) {
	list := make([][]any, len(processes))
	for i := range processes {
		p := &processes[i]
		list[i] = []any{p.PID, p.ContainerPID, p.UID, p.Name, p.Executable}
		if p.Arguments != "" {
			list[i] = append(list[i], p.Arguments)
		}
	}
	return encodeJSON(list, len(list) == 0)
}

func decodeProcesses(text []byte) (processes []model.Process, err error) {
	var list []json.RawMessage
	if err := decodeJSON("processes", text, &list); err != nil {
		return nil, err
	}
	for _, one := range list {
		var p model.Process
		fields := []any{&p.PID, &p.ContainerPID, &p.UID, &p.Name, &p.Executable, &p.Arguments}
		if err := decodeJSON("processes", one, &fields); err != nil {
			return nil, err
		}
		if len(fields) != 5 && len(fields) != 6 {
			return nil, fmt.Errorf("processes: one has %d fields, want 5 or 6", len(fields))
		}
		processes = append(processes, p)
	}
	return processes, nil
}

// detail is what few events have.
type detail struct {
	Namespace string   `json:"namespace,omitempty"`
	Published []string `json:"published,omitempty"`
	// Change is absent where it is the processes.
	Change            model.Change   `json:"change,omitempty"`
	PreviousExposure  model.Exposure `json:"previous_exposure,omitempty"`
	PreviousPublished []string       `json:"previous_published,omitempty"`
	Forward           *model.Forward `json:"forward,omitempty"`
	PreviousForward   *model.Forward `json:"previous_forward,omitempty"`
	// OpenSeconds is absent where openSeconds returns it.
	OpenSeconds *float64     `json:"open_seconds,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Lost        uint64       `json:"lost,omitempty"`
	Burst       *model.Burst `json:"burst,omitempty"`
	Drift       model.Drift  `json:"drift,omitempty"` // see kindColumn
	Ended       bool         `json:"ended,omitempty"`
	Expected    string       `json:"expected,omitempty"`
}

// encodeDetail returns the detail of an event as a JSON column.
func encodeDetail(e *model.Event) (text any, err error) {
	seconds := e.OpenSeconds
	if derived := openSeconds(e); derived != nil && seconds != nil && *derived == *seconds {
		seconds = nil
	}
	change := e.Change
	if change == model.ChangeProcess {
		change = ""
	}
	d := detail{
		Namespace: e.Namespace, Published: e.Published, Change: change, PreviousExposure: e.PreviousExposure, PreviousPublished: e.PreviousPublished,
		Forward: e.Forward, PreviousForward: e.PreviousForward, OpenSeconds: seconds, Reason: e.Reason, Lost: e.Lost, Burst: e.Burst,
		Drift: e.Drift, Ended: e.Ended, Expected: e.Expected,
	}
	return encodeJSON(&d, reflect.ValueOf(&d).Elem().IsZero())
}

// openSeconds returns the open_seconds of an event as they follow from its times. After
// a restart the capture leaves them out: only the latest moment of the closing is known.
func openSeconds(e *model.Event) *float64 {
	if e.Type != model.Closed || e.OpenedAt.IsZero() || e.Source == model.SourceRestart {
		return nil
	}
	seconds := time.Duration(max(nanos(e.Time)-nanos(e.OpenedAt), 0)).Seconds()
	return &seconds
}

// addressText returns an address as a column has it; empty where there is none.
func addressText(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// encodeJSON returns a value as a JSON column, which is NULL where it is empty.
func encodeJSON(value any, empty bool) (text any, err error) {
	if empty {
		return nil, nil
	}
	encoded, err := json.Marshal(value)
	return string(encoded), err
}

// decodeJSON decodes a JSON column; NULL leaves the value as it is.
func decodeJSON(column string, text []byte, into any) error {
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", column, err)
	}
	return nil
}

// The range of times that unix nanoseconds can express, about 1677 to 2262.
// Times beyond are written as its ends; the lowest value stands for the zero
// time.
var earliestTime, latestTime = time.Unix(0, math.MinInt64+1), time.Unix(0, math.MaxInt64)

func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return math.MinInt64
	case t.Before(earliestTime):
		return math.MinInt64 + 1
	case t.After(latestTime):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func timeOf(nanos int64) time.Time {
	if nanos == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
