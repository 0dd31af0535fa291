package notify

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A secret is hidden in every form in which a program might print it, also inside a
// configuration.
func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "https://hooks.example.org/T0KEN"
	s := NewSecret(text)
	c := ReceiverConfig{Name: "ops", Webhook: &WebhookConfig{URL: s}}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	forms := []string{string(asJSON), string(asYAML)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		forms = append(forms, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, c.Webhook), fmt.Sprintf(verb, *c.Webhook), fmt.Sprintf(verb, source{given: s}))
	}
	for _, form := range forms {
		if strings.Contains(form, "T0KEN") || strings.Contains(form, fmt.Sprintf("%x", "T0KEN")) {
			t.Errorf("the secret is in %s", form)
		}
	}
	if !strings.Contains(string(asYAML), hidden) {
		t.Errorf("the YAML is %s, want %s in it", asYAML, hidden)
	}
	var read ReceiverConfig
	if err := yaml.Unmarshal([]byte("name: ops\nwebhook: {url: "+text+"}"), &read); err != nil || read.Webhook.URL.reveal() != text {
		t.Errorf("read from YAML: equal %t, error %v", read.Webhook.URL.reveal() == text, err)
	}
	if err := yaml.Unmarshal(asYAML, &read); err == nil {
		t.Error("what stands for a secret was read as one")
	}
	if empty := (Secret{}); !empty.Empty() || empty.String() != "" {
		t.Errorf("no secret: %q", empty)
	}
}

func TestSource(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hook")
	getenv := func(name string) string { return map[string]string{"HOOK": "from the environment"}[name] }
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := source{file: file}
	for _, test := range []struct{ content, want string }{
		{"first\n", "first"}, {"second after a rotation\r\n", "second after a rotation"}, {" with blanks ", " with blanks "}, {"third", "third"},
	} {
		write(test.content)
		if got, err := s.line(); got != test.want || err != nil {
			t.Errorf("%q was read as %q, error %v", test.content, got, err)
		}
	}
	for _, content := range []string{"", "\n", " \n"} {
		write(content)
		if _, err := s.line(); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "empty") {
			t.Errorf("an empty file: error %v, want one that names it", err)
		}
	}
	write("one\ntwo\n")
	if _, err := s.line(); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "two") {
		t.Errorf("two lines: error %v, want one that names the file and not its content", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := s.line(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("no file: error %v, want one that names it", err)
	}
	for variable, want := range map[string]string{"HOOK": "from the environment", "NONE": ""} {
		if got, err := (&source{variable: variable, getenv: getenv}).line(); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, error %v", variable, got, err)
		} else if err != nil && !strings.Contains(err.Error(), variable) {
			t.Errorf("error %v, want one that names %s", err, variable)
		}
	}
	if _, err := newSource("the key", field{"secret_file", "a"}, field{"secret_env", "B"}, &Options{}); err == nil || !strings.Contains(err.Error(), "secret_file and secret_env") {
		t.Errorf("file and variable: error %v", err)
	}
}

func TestScrub(t *testing.T) {
	const raw = "https://user:p%40ssword@hooks.example.org:8443/services/T0KEN/a%2Fbcde?key=S3CRET&x=1#frag"
	s := scrubURL(raw)
	s.add("hunter2!")
	for text, kept := range map[string]string{
		`Post "` + raw + `": dial tcp: lookup hooks.example.org: no such host`: "no such host",
		"the path /services/T0KEN was refused":                                 "was refused",
		"token=s3cret, and p@ssword, p%40ssword":                               "token=",
		"Authorization: Basic dXNlcjpwQHNzd29yZA== was refused":                "was refused",
		"user a/bcde a%2Fbcde":                                                 "",
		"base64 aHVudGVyMiE= of it":                                            "of it",
		"base64 " + "aHVudGVyMiE":                                              "base64",
		"in lines\nhunt\u202eer2!\x00hunter2!":                                 "in lines hunt?er2!?",
	} {
		got := s.text(text)
		for _, secret := range []string{"hooks.example", "T0KEN", "S3CRET", "p@ssword", "p%40", "hunter2!", "aHVudGVyMiE", "dXNlcjpwQHNzd29yZA", "a/bcde", "a%2Fbcde", "\n", "\x00", "\u202e"} {
			if strings.Contains(got, secret) {
				t.Errorf("%q is in %q", secret, got)
			}
		}
		if !strings.Contains(got, kept) {
			t.Errorf("%q became %q, want %q kept", text, got, kept)
		}
	}
	if long := s.text(strings.Repeat("ä", 400) + "hunter2!"); len(long) > MaxResponse || strings.Contains(long, "hunt") {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}

// FuzzScrub: no part of a URL that may be a secret is left in any text that has it.
func FuzzScrub(f *testing.F) {
	f.Add("https://h.example.org/T0KENT0KEN", "Post %s failed", "T0KENT0KEN")
	f.Add("telegram://123:AAAA@telegram?chats=@x", "%s", "AAAA")
	f.Add("://%zz", "a%sb", "zzzzzzz")
	f.Fuzz(func(t *testing.T, raw, text, secret string) {
		var s scrubber
		s.addURL(raw)
		s.add(secret)
		got := s.text(text + secret + text + raw)
		if len(secret) >= minSecret && !strings.Contains(hidden, secret) && strings.Contains(strings.ReplaceAll(got, hidden, ""), secret) {
			t.Errorf("%q is in %q", secret, got)
		}
		if len(got) > MaxResponse {
			t.Errorf("%d bytes", len(got))
		}
	})
}
