package top

import (
	"strings"

	"portwatcher/internal/model"
)

// style is how a text looks: parameters of SGR.
// Source: ECMA-48, 8.3.117 (SELECT GRAPHIC RENDITION).
type style string

const (
	plain   style = ""
	bold    style = "1"
	faint   style = "2"
	reverse style = "7"
	red     style = "31"
	green   style = "32"
	yellow  style = "33"
	magenta style = "35"
	cyan    style = "36"
)

// paint writes styles. Without colors, text is still bold, faint or reversed.
type paint struct{ colors bool }

// noColor says whether the environment asks for no colors.
// Source: https://no-color.org.
func noColor(environment []string) bool {
	off := false
	for _, variable := range environment { // the last one counts
		if value, found := strings.CutPrefix(variable, "NO_COLOR="); found {
			off = value != ""
		}
	}
	return off
}

// text returns a text that has no escape sequence in a style.
func (p paint) text(s string, as style) string {
	if as == plain || s == "" || !p.colors && strings.HasPrefix(string(as), "3") {
		return s
	}
	return "\x1b[" + string(as) + "m" + s + "\x1b[0m"
}

// exposureStyle makes clear which of them the outside can reach.
func exposureStyle(e model.Exposure) style {
	switch e {
	case model.Published:
		return yellow
	case model.Host:
		return magenta
	case model.Loopback:
		return faint
	}
	return plain
}
