package config

import (
	"slices"
	"strings"

	"portwatcher/internal/expect"
	"portwatcher/internal/model"
)

// The labels that set something for one container.
const (
	// labelPrefix begins the name of each.
	labelPrefix = "portwatcher."
	// labelEnable excludes a container by "false", "0" or "no".
	labelEnable = labelPrefix + "enable"
	// LabelIgnore names ports that are not reported, in the form of [model.ParsePorts].
	LabelIgnore = labelPrefix + "ignore"
)

// LabelExpect has the expectations of one container, in the form of [expect.ParseLabel].
const LabelExpect = expect.Label

// Enabled reports whether a container's label [labelEnable] enables it; without the
// label it is enabled. An invalid value returns true and an [*Error] that names the
// container.
func Enabled(c *model.Container) (bool, error) {
	value, found := c.Labels[labelEnable]
	if !found {
		return true, nil
	}
	enabled, err := parseSwitch(value)
	if err != nil {
		return true, labelError(c, labelEnable, err)
	}
	return enabled, nil
}

// Ignored returns the ports of a container's label [LabelIgnore], none without it. An
// invalid value returns none and an [*Error] that names the container.
func Ignored(c *model.Container) (model.PortSet, error) {
	ports, err := model.ParsePorts(c.Labels[LabelIgnore])
	if err != nil {
		return model.PortSet{}, labelError(c, LabelIgnore, err)
	}
	return ports, nil
}

// Expected checks a container's label [LabelExpect]. An invalid value is an [*Error] that names the
// container; the label counts for nothing then.
func Expected(c *model.Container) error {
	if _, err := expect.ParseLabel(c.Labels[LabelExpect]); err != nil {
		return labelError(c, LabelExpect, err)
	}
	return nil
}

func labelError(c *model.Container, label string, err error) *Error {
	return &Error{Setting: "container " + c.Name + ": label " + label, Value: c.Labels[label], Err: err}
}

// UnknownLabels returns the labels of a container that begin with [labelPrefix] and
// have no effect, in order, each with the one that may have been meant.
func UnknownLabels(c *model.Container) []string {
	var unknown []string
	for label := range c.Labels {
		name, found := strings.CutPrefix(label, labelPrefix)
		if !found || label == labelEnable || label == LabelIgnore || label == LabelExpect {
			continue
		}
		if near := Nearest(name, []string{"enable", "expect", "ignore"}); near != "" {
			label += " (did you mean " + labelPrefix + near + "?)"
		}
		unknown = append(unknown, label)
	}
	slices.Sort(unknown)
	return unknown
}
