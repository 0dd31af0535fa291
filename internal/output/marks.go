package output

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// isMark reports whether a character shows nothing and may change how the text around it is
// shown: control characters, direction marks and other format characters, and separators
// of lines.
func isMark(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// appendMark appends a character as JSON and JavaScript write it in a string.
func appendMark(dst []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}

// EscapeMarks returns JSON in which DEL, C1 controls, direction marks and other characters
// that show nothing are escaped; its values stay the same. It returns its argument where
// there are none.
func EscapeMarks(json []byte) []byte {
	var escaped []byte
	done := 0
	for i := 0; i < len(json); {
		if json[i] < 0x7f { // JSON has no raw control character in a string
			i++
			continue
		}
		r, size := utf8.DecodeRune(json[i:])
		if isMark(r) {
			escaped = appendMark(append(escaped, json[done:i]...), r)
			done = i + size
		}
		i += size
	}
	if done == 0 {
		return json
	}
	return append(escaped, json[done:]...)
}

// Visible returns a text in which each character that shows nothing is written as \u202e.
func Visible(text string) string {
	if !strings.ContainsFunc(text, isMark) {
		return text
	}
	var visible []byte
	for _, r := range text {
		if isMark(r) {
			visible = appendMark(visible, r)
		} else {
			visible = utf8.AppendRune(visible, r)
		}
	}
	return string(visible)
}
