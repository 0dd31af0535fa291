package alert

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/alert/notify"
)

// theIssue is the example of the documentation.
const theIssue = `
group_wait: 10s
repeat: 24h
quiet: [{from: "22:00", to: "07:00", zone: Europe/Berlin, except: critical}]
rules:
  - {name: widened, when: 'drift == "wider"', severity: critical, to: [ops, chat]}
  - {name: unexpected, when: 'drift == "unexpected" && exposure in ["published","host"]', for: 5s, severity: warning, to: [ops]}
  - {name: blind, when: 'type == "gap"', severity: warning, to: [ops, mail, am]}
receivers:
  - {name: ops, webhook: {url_file: /run/secrets/hook, secret_file: /run/secrets/hook_key}}
  - {name: mail, email: {to: [a@example.org], from: b@example.org, smtp: "smtp.example.org:587", username: b, password_file: /run/secrets/smtp}}
  - {name: chat, shoutrrr: {url_file: /run/secrets/chat}}
  - {name: am, alertmanager: {url: "http://alertmanager:9093"}}
`

func TestParse(t *testing.T) {
	c := parse(t, theIssue)
	if c.GroupWait != 10*time.Second || c.Repeat != 24*time.Hour || c.MaxPerHour != 60 || c.Standard || len(c.Warnings) > 0 || !c.Enabled() {
		t.Errorf("got %+v", c)
	}
	if q := c.Quiet[0]; q.From != 22*60 || q.To != 7*60 || q.Zone.String() != "Europe/Berlin" || q.Except != notify.Critical {
		t.Errorf("quiet hours %+v", q)
	}
	if r := c.Rules[1]; r.Name != "unexpected" || r.For != 5*time.Second || r.Severity != notify.Warning || !slices.Equal(r.To, []string{"ops"}) || !r.ofDrift {
		t.Errorf("rule %+v", r)
	}
	var kinds []string
	for i := range c.Receivers {
		kinds = append(kinds, kindOfReceiver(&c.Receivers[i]))
	}
	if got := strings.Join(kinds, " "); got != "webhook email shoutrrr alertmanager" {
		t.Errorf("receivers %s", got)
	}
	if w := c.Receivers[0].Webhook; w.URLFile != "/run/secrets/hook" || w.SecretFile != "/run/secrets/hook_key" {
		t.Errorf("webhook %+v", w)
	}
	if got := c.Summary(); got != "3 rules, 4 receivers" {
		t.Errorf("summary %s", got)
	}
}

// Nothing, and ALERT_WEBHOOK and ALERT_EMAIL alone.
func TestParseVariables(t *testing.T) {
	if c, err := Parse(Settings{}); err != nil || c.Enabled() || len(c.Warnings) > 0 {
		t.Errorf("without settings: %+v, %v", c, err)
	}
	c, err := Parse(Settings{Webhook: "http://hidden", Email: "a@b.c,d@e.f", SMTPVariable: "SMTP_URL", PublicURL: "http://p/"})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Enabled() || !c.Standard || len(c.Rules) != len(standardRules) || c.PublicURL != "http://p" || len(c.Warnings) > 0 {
		t.Errorf("got %+v", c)
	}
	if mail := c.Receivers[1].Email; !slices.Equal(mail.To, []string{"a@b.c", "d@e.f"}) || mail.SMTPURLEnv != "SMTP_URL" {
		t.Errorf("mail %+v", mail)
	}
	for _, r := range c.Rules {
		if !slices.Equal(r.To, []string{EmailName, WebhookName}) {
			t.Errorf("rule %s goes to %v, want both", r.Name, r.To)
		}
	}
}

// Each mistake is reported with its line, entry and field, and what is allowed.
func TestParseErrors(t *testing.T) {
	const ops = "\nreceivers: [{name: ops, webhook: {url: http://hidden}}]"
	for text, want := range map[string][]string{
		"- x":                                   {"config.yaml:1: alerts: it is a list; allowed is a mapping with group_wait, repeat"},
		"group_wiat: 1s":                        {"config.yaml:1: alerts.group_wiat: there is no such field; allowed are group_wait", "did you mean group_wait?"},
		"group_wait: 10":                        {`alerts.group_wait: "10": allowed is a duration with its unit`},
		"group_wait: 2h":                        {"alerts.group_wait: 2h0m0s: allowed are 0 to 1h"},
		"group_wait: [1s]":                      {"alerts.group_wait: it is a list; allowed is text"},
		"repeat: 1s":                            {"alerts.repeat: 1s: allowed are 0 (never) and 1m to 365d"},
		"max_per_hour: 0":                       {"alerts.max_per_hour: 0: allowed are 1 to 3600"},
		"max_per_hour: many":                    {"alerts.max_per_hour: it is a text; allowed is a whole number"},
		"quiet: [{from: 22, to: '07:00'}]":      {`alerts.quiet[0].from: "22": allowed is a time of day`},
		"quiet: [{from: '22:00', to: '22:00'}]": {`alerts.quiet[0].to: "22:00": allowed is another time than from`},
		"quiet:\n  - from: '22:00'\n    to: '07:00'\n    zone: Berlin":           {`config.yaml:4: alerts.quiet[0].zone: "Berlin": allowed are the names of the time zone database`},
		"quiet: [{from: '22:00', to: '07:00', except: high}]":                    {`alerts.quiet[0].except: "high": allowed are info, warning, critical`},
		"rules: [{when: 'true', to: ops}]" + ops:                                 {"alerts.rules[0]: it has no name"},
		"rules: [{name: A b, when: 'true', to: ops}]" + ops:                      {`alerts.rules[0] (A b).name: "A b": allowed are a-z`},
		"rules: [{name: a, when: 'true'}, {name: a, when: 'true'}]" + ops:        {`alerts.rules[1] (a).name: "a": another entry has this name`},
		"rules: [{name: a, when: 'true', severity: high}]" + ops:                 {`alerts.rules[0] (a).severity: "high": allowed are info, warning, critical`},
		"rules: [{name: a, when: 'true', for: 8d}]" + ops:                        {"alerts.rules[0] (a).for: 192h0m0s: allowed are 0 to 7d"},
		"rules: [{name: a, when: 'true', to: opps}]" + ops:                       {`alerts.rules[0] (a).to: there is no receiver "opps"; allowed are ops; did you mean ops?`},
		"rules: [{name: a, when: 'true', too: ops}]" + ops:                       {"alerts.rules[0] (a).too: there is no such field; allowed are name, when, for, severity, to; did you mean to?"},
		"rules: [{name: a, when: 'true'}]":                                       {"alerts.receivers: there is none"},
		"rules: [{name: a, name: b, when: 'true'}]" + ops:                        {"alerts.rules[0] (b).name: it is given twice"},
		"rules: [{name: a}]" + ops:                                               {"alerts.rules[0] (a).when: it is empty; allowed is an expression"},
		"rules: [{name: a, when: 'drfit == \"wider\"'}]" + ops:                   {"alerts.rules[0] (a).when: unknown name drfit; did you mean drift?\n    drfit == \"wider\"\n    ^"},
		"rules: [{name: a, when: 'port > 80 && drift == \"widr\"'}]" + ops:       {"drift is never \"widr\"; allowed are unexpected, missing, wider, process, uncovered\n    port > 80 && drift == \"widr\"\n                          ^"},
		"rules: [{name: a, when: 'exposure in [\"host\", \"out\"]'}]" + ops:      {`exposure is never "out"; allowed are loopback, network, lan, published, host`},
		"rules: [{name: a, when: 'port + 1'}]" + ops:                             {"alerts.rules[0] (a).when: expected bool, but got int"},
		"rules: [{name: a, when: 'port == \"80\"'}]" + ops:                       {"invalid operation: == (mismatched types int and string)\n    port == \"80\"\n         ^"},
		"rules: [{name: a, when: 'container.nme == \"x\"'}]" + ops:               {"has no field nme"},
		"rules:\n  - name: a\n    when: |\n      port == 80 &&\n      (\n" + ops: {"alerts.rules[0] (a).when: unexpected token EOF"},
		"receivers: [{name: ops}]":                                               {"alerts.receivers[0] (ops): it has 0 of webhook, email, shoutrrr and alertmanager; allowed is one of them"},
		"receivers: [{name: ops, webhook: {uri: http://hidden}}]":                {"alerts.receivers[0] (ops).webhook.uri: there is no such field; allowed are url, url_file"},
		"receivers: [{name: ops, webhook: http://hidden}]":                       {"alerts.receivers[0] (ops).webhook: it is a text; allowed is a mapping with url"},
		"receivers: [{name: ops, email: {to: [{a: b}]}}]":                        {"alerts.receivers[0] (ops).email.to[0]: it is a mapping; allowed is text"},
		"receivers: [{name: ops, webhook: {url: http://hidden}, webhook: {}}]":   {"it is given twice"},
	} {
		c, err := tryParse(t, text)
		if err == nil {
			t.Errorf("%s: no error, %+v", text, c)
			continue
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error has a secret: %v", text, err)
		}
		if problem := (*Problem)(nil); !errors.As(err, &problem) {
			t.Errorf("%s: %v is no Problem", text, err)
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s:\n%v\nlacks\n%s", text, err, part)
			}
		}
	}
	_, err := Parse(Settings{PublicURL: "ftp://x"})
	if err == nil || !strings.Contains(err.Error(), `--public-url: "ftp://x": allowed is http://HOST`) {
		t.Errorf("public url: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	c := parse(t, "rules: [{name: a, when: 'true', to: ops}]"+receivers)
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "no rule names the receiver am") {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// FuzzParse: no settings make the parser fail, and what it accepts can be compared with an event.
func FuzzParse(f *testing.F) {
	f.Add(theIssue)
	f.Add("rules: [{name: a, when: 'processes[0].name == \"x\"', to: ops}]" + receivers)
	f.Add("rules: [{name: a, when: 'container.labels[\"a\"] matches \"[\"'}]" + receivers)
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseText(text)
		if err != nil || c == nil {
			return
		}
		r := &rig{t: t, now: monday, started: map[string]time.Time{}}
		r.core = newCore(c, surroundings{})
		r.event("opened shop/web/1 80 published")
		r.event("gap")
		r.wait(time.Minute)
	})
}
