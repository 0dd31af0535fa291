package model

import (
	"errors"
	"strconv"
)

// Count is in how many containers a port has to be open; 0 is the same as 1.
type Count int

// EveryContainer is the count of all running containers that are selected, of which there
// is at least one.
const EveryContainer Count = -1

// maxCount is the largest number that [ParseCount] reads.
const maxCount = 10_000

// ParseCount reads a number of containers, or "all". The error names what is allowed.
func ParseCount(text string) (Count, error) {
	if text == "all" {
		return EveryContainer, nil
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 || number > maxCount {
		return 0, errors.New("allowed are 1 to " + strconv.Itoa(maxCount) + " and all")
	}
	return Count(number), nil
}

// String returns the form that [ParseCount] reads.
func (c Count) String() string {
	if c == EveryContainer {
		return "all"
	}
	return strconv.Itoa(max(int(c), 1))
}

// One reports whether one container is enough, or an endpoint of none.
func (c Count) One() bool { return c == 0 || c == 1 }

// Reached reports whether, in a view, so many containers have an endpoint open that a
// filter selects.
func (c Count) Reached(view *View, m *Matcher) bool {
	open := map[string]bool{}
	for i := range view.Open {
		if o := &view.Open[i]; m.Open(o) {
			if c.One() {
				return true
			}
			if o.Container != nil {
				open[o.Container.ID] = true
			}
		}
	}
	if c != EveryContainer {
		return !c.One() && len(open) >= int(c)
	}
	for i := range view.Containers {
		if one := view.Containers[i].Container; m.Container(one.Ref()) && !open[one.ID] {
			return false
		}
	}
	return len(open) > 0
}
