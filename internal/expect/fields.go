package expect

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// fields set the fields of an entry. The error states what is allowed.
var fields = map[string]func(e *Entry, text string) error{
	"target": func(e *Entry, text string) (err error) {
		if e.Target, err = model.ParseSelection(text); err == nil && e.Target.Empty() {
			err = errors.New("allowed are " + model.SelectionHelp + "; * for every container")
		}
		return err
	},
	"port": func(e *Entry, text string) (err error) {
		if e.Ports, err = model.ParsePorts(text); err == nil && e.Ports.Empty() {
			err = errors.New("allowed are ports and ranges, such as 80/tcp and 8000-8100")
		}
		return err
	},
	"exposure": func(e *Entry, text string) (err error) {
		e.Exposure, err = model.ParseExposure(text)
		return err
	},
	"outside": func(e *Entry, text string) error {
		outside, err := parseSwitch(text)
		e.Inside = !outside
		return err
	},
	"process": func(e *Entry, text string) error {
		e.Processes = model.Words(text)
		if len(e.Processes) == 0 {
			return errors.New("allowed are names of processes and paths of executables, separated by commas or blanks")
		}
		return nil
	},
	"reason": func(e *Entry, text string) error {
		e.Reason = text
		return nil
	},
	"until": func(e *Entry, text string) error {
		day, err := time.Parse(untilLayout, text)
		if err != nil {
			return errors.New("allowed is the last day on which the entry counts, such as 2027-06-30 (UTC)")
		}
		e.Until = day.AddDate(0, 0, 1)
		return nil
	},
	"required": func(e *Entry, text string) (err error) {
		e.Required, err = parseSwitch(text)
		return err
	},
	"for": func(e *Entry, text string) (err error) {
		if e.For, err = time.ParseDuration(text); err != nil || e.For < 0 || e.For > maxFor {
			return fmt.Errorf("allowed are 0 to %.0fh, with a unit as in 30s", maxFor.Hours())
		}
		return nil
	},
}

func parseSwitch(text string) (bool, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("allowed are true and false")
}

// ParseLabel reads the expectations that a container's label has: ports as in the file, each
// with the widest exposure, such as 80/tcp@published,9000-9100/tcp@network. The error is a
// [*model.EntryError].
func ParseLabel(text string) ([]*Entry, error) {
	var all []*Entry
	for _, word := range model.Words(text) {
		ports, exposure, found := strings.Cut(word, "@")
		e := &Entry{}
		var err error
		if e.Ports, err = model.ParsePorts(ports); err == nil {
			e.Exposure, err = model.ParseExposure(exposure)
		}
		if !found || ports == "" || err != nil {
			return nil, &model.EntryError{Entry: word, Err: errors.New("allowed are ports and ranges with the widest exposure, such as 80/tcp@published and 9000-9100/tcp@network; exposures are " + model.Join(model.Exposures, ", "))}
		}
		all = append(all, e)
	}
	return all, nil
}
