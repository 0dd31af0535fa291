package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"portwatcher/internal/filewatch"
)

// maxSecret bounds the files and variables of secrets, in bytes.
const maxSecret = 64 << 10

// source is where a secret comes from. It is read at each try, so that a file that changes is in
// effect at once. The zero value is no secret.
type source struct {
	given    Secret
	file     string
	variable string
	getenv   func(string) string
}

// field is the name of one field of the settings with its value, for errors.
type field struct{ name, value string }

// newSource makes a source of at most one of the fields that are set. what names the secret.
func newSource(what string, file, variable field, o *Options) (source, error) {
	if file.value != "" && variable.value != "" {
		return source{}, fmt.Errorf("%s: both %s and %s are set; allowed is one of them", what, file.name, variable.name)
	}
	getenv := o.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	return source{file: file.value, variable: variable.value, getenv: getenv}, nil
}

// set reports whether there is a secret.
func (s *source) set() bool { return !s.given.Empty() || s.file != "" || s.variable != "" }

// read returns the secret, without the end of its last line. The error names the file or the
// variable.
func (s *source) read() (string, error) {
	text, from := s.given.reveal(), "the secret"
	switch {
	case s.file != "":
		content, err := filewatch.Read(s.file, maxSecret)
		if err != nil {
			if failed, ok := errors.AsType[*fs.PathError](err); ok {
				err = failed.Err
			}
			return "", fmt.Errorf("the file %q with the secret cannot be read: %w", s.file, err)
		}
		text, from = string(content), fmt.Sprintf("the file %q", s.file)
	case s.variable != "":
		text, from = s.getenv(s.variable), fmt.Sprintf("the environment variable %q", s.variable)
	}
	text = strings.TrimRight(text, "\r\n")
	if strings.TrimSpace(text) == "" {
		return "", fmt.Errorf("%s is empty; allowed is a secret of one line", from)
	}
	return text, nil
}

// line is read for a secret that has one line.
func (s *source) line() (string, error) {
	text, err := s.read()
	if err == nil && strings.ContainsAny(text, "\r\n\x00") {
		name := s.file
		if name == "" {
			name = s.variable
		}
		return "", fmt.Errorf("%q has several lines; allowed is a secret of one line", name)
	}
	return text, err
}
