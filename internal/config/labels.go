package config

import (
	"slices"
	"strings"

	"portwatcher/internal/model"
)

// The labels that set something for one container.
const (
	// LabelPrefix begins the name of each.
	LabelPrefix = "portwatcher."
	// LabelEnable excludes a container by "false", "0" or "no".
	LabelEnable = LabelPrefix + "enable"
	// LabelIgnore names ports that are not reported, as [model.ParsePorts] reads them.
	LabelIgnore = LabelPrefix + "ignore"
)

// labels are those that are acted on.
var labels = []string{LabelEnable, LabelIgnore}

// Enabled returns what a container's label [LabelEnable] says; without it, a
// container is enabled. A value that is not understood gives true and an
// [*Error] that names the container.
func Enabled(c *model.Container) (bool, error) {
	value, found := c.Labels[LabelEnable]
	if !found {
		return true, nil
	}
	enabled, err := parseSwitch(value)
	if err != nil {
		return true, labelError(c, LabelEnable, err)
	}
	return enabled, nil
}

// Ignored returns the ports that a container's label [LabelIgnore] takes out of
// the report: none without it. A value that is not understood gives none, and an
// [*Error] that names the container.
func Ignored(c *model.Container) (model.PortSet, error) {
	rules, err := model.ParsePorts(c.Labels[LabelIgnore])
	if err != nil {
		return model.PortSet{}, labelError(c, LabelIgnore, err)
	}
	return rules, nil
}

func labelError(c *model.Container, label string, err error) *Error {
	return &Error{Setting: "container " + c.Name + ": label " + label, Value: c.Labels[label], Err: err}
}

// UnknownLabels returns the labels of a container that begin with [LabelPrefix]
// and mean nothing, in order, each with the one that may have been meant.
func UnknownLabels(c *model.Container) []string {
	var names []string
	for label := range c.Labels {
		if strings.HasPrefix(label, LabelPrefix) && !slices.Contains(labels, label) {
			name := label
			if near := nearest(strings.TrimPrefix(label, LabelPrefix), LabelPrefix, labels); near != "" {
				name += " (did you mean " + near + "?)"
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
