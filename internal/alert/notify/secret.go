package notify

import "errors"

// Secret is a text that is never printed, encoded or logged: every form of it is "(secret)". The
// zero value is no secret.
type Secret struct {
	// text is behind a pointer because fmt does not call the methods of a value in an unexported
	// field, but prints what it finds.
	text *string
}

// NewSecret makes a text a secret; an empty one is none.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// hidden is every form of a secret.
const hidden = "(secret)"

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.text == nil }

// reveal returns the text.
func (s Secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String implements [fmt.Stringer].
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return hidden
}

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// MarshalText implements [encoding.TextMarshaler], which JSON and YAML use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// IsZero makes YAML leave out what is empty.
func (s Secret) IsZero() bool { return s.Empty() }

// UnmarshalText implements [encoding.TextUnmarshaler], which JSON and YAML use.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == hidden {
		return errors.New("it is what is shown instead of a secret; allowed is the secret itself")
	}
	*s = NewSecret(string(text))
	return nil
}
