package notify

import (
	"cmp"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"portwatcher/internal/output"
)

// scrubber replaces secrets in texts that others made: errors of libraries, and answers.
type scrubber struct{ forms []string }

// minSecret is the length from which a part of a URL is taken for a secret. Shorter ones occur
// in every text.
const minSecret = 4

// minWord is the length from which a word of a URL is taken for one.
const minWord = 8

// add adds secrets, each in the forms that libraries and servers give it.
func (s *scrubber) add(secrets ...string) {
	for _, secret := range secrets {
		if len(secret) < minSecret {
			continue
		}
		quoted := strconv.Quote(secret)
		for _, form := range []string{
			secret, strings.ToLower(secret), url.QueryEscape(secret), url.PathEscape(secret), quoted[1 : len(quoted)-1],
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			if !slices.Contains(s.forms, form) {
				s.forms = append(s.forms, form)
			}
		}
	}
	slices.SortFunc(s.forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
}

// addURL adds a URL and its parts: user, password, host, and each element of path, query and
// fragment. A text that is no URL is added as it is.
func (s *scrubber) addURL(text string) {
	s.add(text)
	// Services make other URLs of the words of theirs: a token of Slack becomes three elements of
	// a path. A word that is short occurs in every text.
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' }) {
		if len(word) >= minWord {
			s.add(word)
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		s.add(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(":/?#@&=", r) })...)
		return
	}
	s.add(u.Host, u.Hostname(), u.Opaque, u.Path, u.RawQuery, u.Fragment, u.User.Username(), u.RequestURI())
	if password, found := u.User.Password(); found {
		s.add(password, u.User.Username()+":"+password) // the latter in base64 is basic authentication
	}
	s.add(strings.Split(u.Path, "/")...)
	s.add(strings.Split(u.EscapedPath(), "/")...)
	for name, values := range u.Query() {
		s.add(name)
		s.add(values...)
	}
}

// text returns a text without the secrets, in printable characters of one line, and at most
// [MaxResponse] bytes. A secret is replaced before the text is cut, so that no part of one is
// left at the end.
func (s *scrubber) text(text string) string {
	text = s.replace(text)
	text = output.Printable(strings.Join(strings.Fields(text), " "))
	text = s.replace(text)
	if len(text) > MaxResponse {
		text = strings.ToValidUTF8(text[:MaxResponse-len("…")], "") + "…"
	}
	return text
}

func (s *scrubber) replace(text string) string {
	for _, form := range s.forms {
		if form != hidden {
			text = strings.ReplaceAll(text, form, hidden)
		}
	}
	return text
}
