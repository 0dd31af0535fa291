package procfs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"portwatcher/internal/netns"
)

const (
	// maxArguments is the length in bytes of what [Arguments] returns.
	maxArguments = 256
	// maxCommandLine is how much of a command line is read: what is redacted may be longer
	// than what takes its place.
	maxCommandLine = 4096
	redacted       = "***"
)

// Arguments returns the arguments of a process without its first, the program, joined by
// blanks: at most 256 bytes, the last of which are "…" where there are more. Empty is
// what cannot be read.
//
// What may be a secret is redacted, rather too much than too little: the value of an
// argument or option whose name contains pass, pwd, secret, token, key, credential or
// authorization, up to the end of the argument, and what is before the @ of a URL.
func Arguments(procRoot string, pid int) string {
	var text []byte
	err := netns.Through(procRoot, pid, func(folder string) error {
		file, err := os.Open(filepath.Join(folder, "cmdline"))
		if err != nil {
			return gone(err)
		}
		defer file.Close()
		text, err = io.ReadAll(io.LimitReader(file, maxCommandLine))
		if err == nil && len(text) == 0 { // as the kernel shows a thread that has exited
			return fmt.Errorf("%s is empty: %w", file.Name(), netns.ErrProcessGone)
		}
		return gone(err)
	})
	if err != nil {
		return ""
	}
	return arguments(string(text))
}

// arguments is Arguments of a command line, in which each argument ends with a zero byte.
func arguments(text string) string {
	all := strings.Split(strings.TrimRight(text, "\x00"), "\x00")
	if len(text) == maxCommandLine { // the secret in the last may be cut where it is not found any more
		all = all[:len(all)-1]
	}
	if len(all) < 2 {
		return ""
	}
	return shorten(strings.Join(redact(all[1:]), " "))
}

// A value follows an option as an argument of its own, or a name after = or :.
const secretName = `(?i)(?:pass|pwd|secret|token|key|credential|authorization)[\w.\-]*`

var (
	secretOption = regexp.MustCompile(`^-[\w.\-]*` + secretName + `$`)
	secretValue  = regexp.MustCompile(secretName + `["']?\s*[=:]`)
	userInfo     = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.\-]*://)\S*@`)
)

// redact replaces what may be a secret.
func redact(all []string) []string {
	isValue := false // of the option before
	for i, argument := range all {
		all[i] = userInfo.ReplaceAllString(argument, "${1}"+redacted+"@")
		if at := secretValue.FindStringIndex(all[i]); at != nil {
			all[i] = all[i][:at[1]] + redacted
		}
		if isValue {
			all[i] = redacted
		}
		isValue = secretOption.MatchString(argument) // also where it may be the value of another
	}
	return all
}

// shorten cuts a text to maxArguments bytes, between characters.
func shorten(text string) string {
	const more = "…"
	if len(text) <= maxArguments {
		return text
	}
	end := maxArguments - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}
