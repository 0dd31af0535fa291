package notify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// received is a request that a server has read.
type received struct {
	header http.Header
	body   []byte
}

// recorder starts a server that takes everything, and returns its URL and what it takes.
func recorder(t testing.TB) (string, <-chan received) {
	t.Helper()
	requests := make(chan received, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- received{r.Header, body}
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

// deliverTo sends a notification and returns what the recorder has received.
func deliverTo(t testing.TB, r Receiver, n *Notification, requests <-chan received) received {
	t.Helper()
	if o := r.Send(t.Context(), n); !o.Delivered {
		t.Fatalf("%s: %+v", r.Name(), o)
	}
	return <-requests
}

// TestSignature verifies signatures with the library of Standard Webhooks.
func TestSignature(t *testing.T) {
	raw := []byte("an example of a key of 32 bytes.")
	encoded := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	for name, test := range map[string]struct {
		file string
		keys []string // each of which verifies
	}{
		"base64":          {encoded, []string{encoded}},
		"bytes":           {string(raw), []string{encoded}},
		"two in rotation": {encoded + "\nanother key of some more bytes", []string{encoded, "whsec_" + base64.StdEncoding.EncodeToString([]byte("another key of some more bytes"))}},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := recorder(t)
			r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url), SecretFile: secretFile(t, test.file)}})
			n := one()
			n.ID = "node1.example.org/4711"
			got, again := deliverTo(t, r, n, requests), deliverTo(t, r, n, requests)
			for _, key := range test.keys {
				verifier, err := standardwebhooks.NewWebhook(key)
				if err != nil {
					t.Fatal(err)
				}
				if err := verifier.Verify(got.body, got.header); err != nil {
					t.Errorf("the signature %q: %v", got.header.Get(headerSignature), err)
				}
				if err := verifier.Verify(append(bytes.Clone(got.body), ' '), got.header); err == nil {
					t.Error("another body has the same signature")
				}
				forged := got.header.Clone()
				forged.Set(headerID, "node1/4712")
				if err := verifier.Verify(got.body, forged); err == nil {
					t.Error("another id has the same signature")
				}
			}
			wrong, err := standardwebhooks.NewWebhookRaw([]byte("not the key of this receiver ..."))
			if err != nil {
				t.Fatal(err)
			}
			if err := wrong.Verify(got.body, got.header); err == nil {
				t.Error("another key verifies it")
			}
			if id := got.header.Get(headerID); id != "node1%2Eexample%2Eorg/4711" || again.header.Get(headerID) != id {
				t.Errorf("the id is %q, then %q; want the same, without a full stop", id, again.header.Get(headerID))
			}
			if !bytes.Equal(got.body, again.body) {
				t.Error("the second try has another body")
			}
		})
	}
}

// The key is read at each try, and no error shows it.
func TestKeyIsReadAgain(t *testing.T) {
	url, requests := recorder(t)
	file := secretFile(t, "the first key of this receiver")
	r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url), SecretFile: file}})
	deliverTo(t, r, one(), requests)
	second := "the second key of this receiver"
	if err := os.WriteFile(file, []byte(second+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := deliverTo(t, r, one(), requests)
	verifier, err := standardwebhooks.NewWebhookRaw([]byte(second))
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	for content, want := range map[string]string{
		"": "empty", "short": "5 bytes", "whsec_%%%%not-base64": "not valid base64", "whsec_" + base64.StdEncoding.EncodeToString([]byte("short")): "5 bytes",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		o := r.Send(t.Context(), one())
		if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), want) {
			t.Errorf("the key %q: %+v, want %q", content, o, want)
		}
		noSecret(t, o, "%%%%", second)
	}
	if len(requests) != 0 {
		t.Error("a notification was sent without a valid signature")
	}
}

// TestCloudEvent reads each example with the SDK of CloudEvents.
func TestCloudEvent(t *testing.T) {
	url, requests := recorder(t)
	r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url)}})
	want := map[string][2]string{
		"unexpected port":     {"portwatcher.drift.unexpected", "shop/web/9229/tcp"},
		"missing port":        {"portwatcher.drift.missing", "shop/db/5432/tcp"},
		"uncovered container": {"portwatcher.drift.uncovered", "scratch"},
		"gap":                 {"portwatcher.gap", ""}, "burst": {"portwatcher.burst", "shop/worker"},
		"new port, without expectations":            {"portwatcher.port.opened", "shop/web/9229/tcp"},
		"published port gone, without expectations": {"portwatcher.port.closed", "shop/web/443/tcp"},
		"exposure changed, without expectations":    {"portwatcher.port.changed", "shop/db/5432/tcp"},
		"end of a condition":                        {"portwatcher.drift.missing", "shop/db/5432/tcp"},
		"group: what happened together":             {"portwatcher.alerts", "shop"},
		"digest: what quiet hours held back":        {"portwatcher.digest", ""},
		"hostile":                                   {"portwatcher.drift.unexpected", ""},
	}
	for _, example := range append(Examples("node1", made, pageURL), Example{"hostile", hostile()}) {
		got := deliverTo(t, r, example.Notification, requests)
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(got.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = got.header
		e, err := cloudevents.NewEventFromHTTPRequest(request)
		if err != nil {
			t.Errorf("%s: %v", example.Name, err)
			continue
		}
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", example.Name, err)
		}
		if expected, found := want[example.Name]; found && example.Name != "hostile" && (e.Type() != expected[0] || e.Subject() != expected[1]) {
			t.Errorf("%s: type %q, subject %q, want %q", example.Name, e.Type(), e.Subject(), expected)
		}
		if e.ID() != got.header.Get(headerID) || !e.Time().Equal(made) || e.Extensions()["severity"] != string(example.Notification.Severity) {
			t.Errorf("%s: id %q, time %s, extensions %v", example.Name, e.ID(), e.Time(), e.Extensions())
		}
		if example.Name != "hostile" && e.Source() != "node1" {
			t.Errorf("%s: source %q", example.Name, e.Source())
		}
		var data eventData
		if err := e.DataAs(&data); err != nil {
			t.Errorf("%s: the data: %v", example.Name, err)
		}
		if len(data.Alerts) != len(example.Notification.Alerts) || data.Status != example.Notification.NotificationStatus() || data.Test != example.Notification.Test {
			t.Errorf("%s: the data is %+v", example.Name, data)
		}
		if bytes.ContainsAny(got.body, "\u202e\x1b\x00") {
			t.Errorf("%s: the body has marks that steer a terminal: %q", example.Name, got.body)
		}
	}
	if got := deliverTo(t, r, many(MaxEventAlerts+7), requests); !bytes.Contains(got.body, []byte(`"alerts_omitted":7`)) {
		t.Error("the alerts beyond the bound are not counted")
	}
}

// TestFormats sends each example, and a hostile one, in each format.
func TestFormats(t *testing.T) {
	for _, format := range Formats {
		t.Run(format, func(t *testing.T) {
			url, requests := recorder(t)
			c := &WebhookConfig{URL: NewSecret(url), Format: format, TokenFile: secretFile(t, "tk_secret")}
			if format == FormatTemplate {
				c.Template = `{"text": {{title . | json}}, "first": {{(index .Alerts 0).Event.Processes | json}}}`
			}
			r := receiver(t, ReceiverConfig{Webhook: c})
			examples := append(Examples("node1", made, pageURL), Example{"hostile", hostile()}, Example{"many", many(MaxItems + 5)}, Example{"no page", Examples("node1", made, "")[0].Notification})
			for _, example := range examples {
				got := deliverTo(t, r, example.Notification, requests)
				if got.header.Get("Authorization") != "Bearer tk_secret" || !strings.HasPrefix(got.header.Get("User-Agent"), "portwatcher/1.2.3") {
					t.Errorf("%s: the header is %v", example.Name, got.header)
				}
				checkFormatted(t, format, example, got)
			}
		})
	}
}

func checkFormatted(t *testing.T, format string, example Example, got received) {
	t.Helper()
	if format != FormatNtfy && !json.Valid(got.body) {
		t.Errorf("%s: not valid JSON: %s", example.Name, got.body)
	}
	if bytes.ContainsAny(got.body, "\u202e\x1b\x00\r") {
		t.Errorf("%s: characters that steer a terminal in %q", example.Name, got.body)
	}
	var message struct {
		Text            string
		Blocks          []struct{ Text, Elements json.RawMessage }
		Embeds          []struct{ Title, Description string }
		AllowedMentions *struct{ Parse []string } `json:"allowed_mentions"`
		Title, Message  string
		Priority        int
	}
	if format != FormatNtfy {
		if err := json.Unmarshal(got.body, &message); err != nil && format != FormatCloudEvents {
			t.Errorf("%s: %v", example.Name, err)
		}
	}
	switch format {
	case FormatSlack:
		if len(message.Blocks) < 3 || len(message.Blocks) > slackBlocks || strings.ContainsAny(message.Text, "<>") {
			t.Errorf("%s: %d blocks, text %q", example.Name, len(message.Blocks), message.Text)
		}
		for _, block := range message.Blocks {
			if bytes.Contains(block.Text, []byte(`"mrkdwn"`)) && (bytes.Contains(block.Text, []byte("<!")) || bytes.Contains(block.Text, []byte("<@"))) {
				t.Errorf("%s: a mention in %s", example.Name, block.Text)
			}
		}
	case FormatDiscord:
		if message.AllowedMentions == nil || len(message.AllowedMentions.Parse) != 0 || len(message.Embeds) != 1 {
			t.Fatalf("%s: %s", example.Name, got.body)
		}
		if e := message.Embeds[0]; len([]rune(e.Title)) > discordTitle || len(e.Description) > discordDescription || strings.Contains(e.Description, "@everyone") {
			t.Errorf("%s: the embed is %q", example.Name, e)
		}
	case FormatTeams:
		if bytes.Contains(got.body, []byte(`"TextBlock"`)) {
			t.Errorf("%s: a text that Teams reads as Markdown: %s", example.Name, got.body)
		}
	case FormatNtfy:
		if len(got.body) > ntfyText || got.header.Get("Title") == "" || got.header.Get("Priority") == "" || got.header.Get("Bcc") != "" {
			t.Errorf("%s: %d bytes, header %v", example.Name, len(got.body), got.header)
		}
	case FormatGotify:
		if message.Title == "" || message.Message == "" || message.Priority == 0 {
			t.Errorf("%s: %s", example.Name, got.body)
		}
	}
}

// TestTemplateIsCheckedAtStart: a mistake in a template is an error of New.
func TestTemplateIsCheckedAtStart(t *testing.T) {
	for text, want := range map[string]string{
		"": "empty", "{{": "template:1", "{{.Hosts}}": "Hosts", "{{(index .Alerts 9).Rule}}": "index out of range", "{{nosuch .}}": "nosuch",
		`{"host": {{.Host}}}`: "not valid JSON", `{{range .Alerts}}{{.LastSeen.Unix}}{{end}}`: "LastSeen",
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`:                               "template",
		`{{range $i := 3000000}}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{end}}`: "more than 1048576 bytes",
	} {
		_, err := New(ReceiverConfig{Name: "chat", Webhook: &WebhookConfig{URL: NewSecret("http://h"), Format: FormatTemplate, Template: text}}, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"chat"`) {
			t.Errorf("the template %q: error %v, want %q in it", text, err, want)
		}
	}
	url, requests := recorder(t)
	r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{
		URL: NewSecret(url), Format: FormatTemplate, ContentType: "text/plain",
		Template: "{{status .}}: {{range .Alerts}}{{subject .}} {{type .}} {{sentence .}} by {{range .Event.Processes}}{{.Name}}{{end}}{{end}}",
	}})
	got := deliverTo(t, r, one(), requests)
	if want := "firing: shop/web/9229/tcp portwatcher.drift.unexpected port 9229/tcp of shop/web is open and not expected, " +
		"published at 0.0.0.0:9229, [::]:9229 by node"; string(got.body) != want || got.header.Get("Content-Type") != "text/plain" {
		t.Errorf("the body is %q, want %q; header %v", got.body, want, got.header)
	}
	if got := deliverTo(t, r, hostile(), requests); bytes.ContainsAny(got.body, "\r\n\x00\x1b\u202e") {
		t.Errorf("a name steers the text: %q", got.body)
	}
}

// TestInvalidReceivers: the error names the entry, what is wrong and what is allowed.
func TestInvalidReceivers(t *testing.T) {
	const secret = "T0KEN-that-is-secret"
	url := NewSecret("https://h/" + secret)
	to := []string{"ops@example.org"}
	getenv := func(name string) string {
		return map[string]string{
			"NOT_HTTP": "ftp://h/" + secret, "SMTP": "smtp://u:" + secret + "@h/path", "CHAT": "nosuch://" + secret, "TELEGRAM": "telegram://" + secret,
			"PLAIN": "smtp://u:" + secret + "@h:25?tls=none", "BROKEN": "smtp://u:" + secret + "%zz@h", "CONTROL": "https://h/" + secret + "\x01", "LOGGER": "logger://",
		}[name]
	}
	for want, c := range map[string]ReceiverConfig{
		"it has 0 kinds; allowed is one of webhook, email, shoutrrr and alertmanager": {},
		"it has 2 kinds":           {Webhook: &WebhookConfig{URL: url}, Email: &EmailConfig{}},
		"the URL is missing":       {Webhook: &WebhookConfig{}},
		"both url and url_file":    {Webhook: &WebhookConfig{URL: url, URLEnv: "X"}},
		"no address of HTTP":       {Webhook: &WebhookConfig{URLEnv: "NOT_HTTP"}},
		"no address of HTTP; allo": {Webhook: &WebhookConfig{URLEnv: "CONTROL"}},
		`"NONE" is empty`:          {Webhook: &WebhookConfig{URLEnv: "NONE"}},
		"/no/such/file":            {Webhook: &WebhookConfig{URL: url, SecretFile: "/no/such/file"}},
		"/no/such/ca":              {Webhook: &WebhookConfig{URL: url, CAFile: "/no/such/ca"}},
		`"xml"; allowed are cloudevents, slack, discord, teams, ntfy, gotify, template`: {Webhook: &WebhookConfig{URL: url, Format: "xml"}},
		"allowed is template where template or content_type is set":                     {Webhook: &WebhookConfig{URL: url, Template: "x"}},
		"content_type":                               {Webhook: &WebhookConfig{URL: url, Format: FormatTemplate, Template: "x", ContentType: "//"}},
		"to: it is empty":                            {Email: &EmailConfig{SMTP: "h:25"}},
		`to: "nobody" is no address`:                 {Email: &EmailConfig{To: []string{"nobody"}, SMTP: "h:25"}},
		`from: "x\r\nBcc: y" is no address`:          {Email: &EmailConfig{To: to, From: "x\r\nBcc: y", SMTP: "h:25"}},
		"smtp: allowed is one of smtp":               {Email: &EmailConfig{To: to}},
		`smtp: "h:99999"`:                            {Email: &EmailConfig{To: to, SMTP: "h:99999"}},
		`tls: "maybe"; allowed are starttls, tls`:    {Email: &EmailConfig{To: to, SMTP: "h:25", TLS: "maybe"}},
		"both username and password_file":            {Email: &EmailConfig{To: to, SMTP: "h:25", Username: "u"}},
		"none would send the password in clear text": {Email: &EmailConfig{To: to, SMTPURLEnv: "PLAIN"}},
		"smtp_url: it is no URL of an SMTP server":   {Email: &EmailConfig{To: to, SMTPURLEnv: "SMTP"}},
		"smtp_url: it is no URL of an SMTP server; ": {Email: &EmailConfig{To: to, SMTPURLEnv: "BROKEN"}},
		"parts of the URL":                           {Email: &EmailConfig{To: to, SMTPURLEnv: "SMTP", TLS: "tls"}},
		"the name of no service of shoutrrr":         {Shoutrrr: &ShoutrrrConfig{URLEnv: "CHAT"}},
		"the service telegram is not valid":          {Shoutrrr: &ShoutrrrConfig{URLEnv: "TELEGRAM"}},
		"the service logger has no log":              {Shoutrrr: &ShoutrrrConfig{URLEnv: "LOGGER"}},
		"allowed is one of url and urls":             {Alertmanager: &AlertmanagerConfig{}},
		"Alertmanager 1 of 1 is not valid":           {Alertmanager: &AlertmanagerConfig{URL: "http://u:" + secret + "@h"}},
		`labels: "a-b"`:                              {Alertmanager: &AlertmanagerConfig{URL: "http://h", Labels: map[string]string{"a-b": "c"}}},
		"either a token, or username":                {Alertmanager: &AlertmanagerConfig{URL: "http://h", Username: "u", PasswordEnv: "X", TokenEnv: "Y"}},
	} {
		c.Name = "night"
		_, err := New(c, Options{Getenv: getenv})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `receiver "night": `) {
			t.Errorf("error %v, want %q in it", err, want)
		} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("the error shows a secret, or has several lines: %v", err)
		}
	}
	if _, err := New(ReceiverConfig{Webhook: &WebhookConfig{URL: url}}, Options{}); err == nil || !strings.Contains(err.Error(), "no name") {
		t.Errorf("no name: error %v", err)
	}
}

// What is no notification is refused for good.
func TestSendNothing(t *testing.T) {
	url, requests := recorder(t)
	r := receiver(t, ReceiverConfig{Webhook: &WebhookConfig{URL: NewSecret(url)}})
	for _, n := range []*Notification{{ID: "x"}, {Alerts: one().Alerts}, {ID: "x", Alerts: []Alert{{}}}} {
		if o := r.Send(t.Context(), n); o.Delivered || !o.Gone || o.Err == nil {
			t.Errorf("%+v: %+v", n, o)
		}
	}
	if len(requests) != 0 {
		t.Error("it was sent")
	}
}

func BenchmarkRender(b *testing.B) {
	n := one()
	for b.Loop() {
		Render(n)
	}
}

func BenchmarkCloudEvent(b *testing.B) {
	n := one()
	for b.Loop() {
		if _, err := encodeEvent(n); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	body, err := encodeEvent(one())
	if err != nil {
		b.Fatal(err)
	}
	keys, header := [][]byte{make([]byte, 32)}, http.Header{}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		sign(header, keys, "node1/4711", time.Now(), body)
	}
}
