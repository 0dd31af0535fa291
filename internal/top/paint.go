package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"

	"portwatcher/internal/model"
)

// style is an appearance of text: parameters of SGR.
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

// paint returns a text without escape sequences in a style. Bubble Tea removes the colors
// where NO_COLOR asks for none.
func (as style) paint(s string) string {
	if as == plain || s == "" {
		return s
	}
	return "\x1b[" + string(as) + "m" + s + "\x1b[0m"
}

// exposureStyle highlights what can be reached from outside.
func exposureStyle(e model.Exposure) style {
	switch e {
	case model.Published, model.Lan:
		return yellow
	case model.Host:
		return magenta
	case model.Loopback:
		return faint
	}
	return plain
}

// width returns how many cells of the terminal a text takes.
func width(s string) int {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return ansi.StringWidth(s)
		}
	}
	return len(s)
}

// fit makes a text exactly so many cells wide, and marks where it cuts.
func fit(s string, cells int) string {
	s = cut(s, cells)
	return s + strings.Repeat(" ", max(0, cells-width(s)))
}

// cut shortens a text to so many cells where it is longer.
func cut(s string, cells int) string {
	if width(s) <= cells {
		return s
	}
	if cells <= 0 {
		return ""
	}
	return ansi.Truncate(s, cells, "…")
}
