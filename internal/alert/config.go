package alert

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// The standard settings.
const (
	StandardGroupWait  = 10 * time.Second
	StandardRepeat     = 24 * time.Hour
	StandardMaxPerHour = 60
)

// The names of the receivers that ALERT_WEBHOOK and ALERT_EMAIL make.
const (
	WebhookName = "webhook"
	EmailName   = "email"
)

// Settings are what [Parse] reads.
type Settings struct {
	// File is the path of the file, for errors, and Node the value of alerts: in it; nil for
	// none.
	File string
	Node *yaml.Node
	// Webhook is the URL of ALERT_WEBHOOK, Email the addresses of ALERT_EMAIL; empty for none.
	Webhook, Email string
	// SMTPVariable is the environment variable that has the server of Email.
	SMTPVariable string
	// PublicURL is where people reach the page; empty where it is not known.
	PublicURL string
}

// Config are the checked settings of alerts. It is immutable.
type Config struct {
	GroupWait  time.Duration
	Repeat     time.Duration // 0: never
	Quiet      []Quiet
	MaxPerHour int // of each receiver
	Rules      []*Rule
	Receivers  []notify.ReceiverConfig
	PublicURL  string // without a slash at its end
	// Standard means that the rules are the standard ones.
	Standard bool
	// Warnings are lines to log.
	Warnings []string
}

// Enabled reports whether there is anything to do.
func (c *Config) Enabled() bool { return c != nil && len(c.Receivers) > 0 }

// kind returns the kind of a receiver; empty where there is none of that name.
func (c *Config) kind(receiver string) string {
	for i := range c.Receivers {
		if c.Receivers[i].Name == receiver {
			return kindOfReceiver(&c.Receivers[i])
		}
	}
	return ""
}

func kindOfReceiver(r *notify.ReceiverConfig) string {
	switch {
	case r.Webhook != nil:
		return notify.KindWebhook
	case r.Email != nil:
		return notify.KindEmail
	case r.Shoutrrr != nil:
		return notify.KindShoutrrr
	case r.Alertmanager != nil:
		return notify.KindAlertmanager
	}
	return ""
}

// fileConfig is the form of alerts: in the file.
type fileConfig struct {
	GroupWait  *time.Duration          `yaml:"group_wait"`
	Repeat     *time.Duration          `yaml:"repeat"`
	Quiet      []fileQuiet             `yaml:"quiet"`
	MaxPerHour *int                    `yaml:"max_per_hour"`
	Rules      []fileRule              `yaml:"rules"`
	Receivers  []notify.ReceiverConfig `yaml:"receivers"`
}

type fileQuiet struct {
	From   string `yaml:"from"`
	To     string `yaml:"to"`
	Zone   string `yaml:"zone"`
	Except string `yaml:"except"`
}

type fileRule struct {
	Name     string        `yaml:"name"`
	When     string        `yaml:"when"`
	For      time.Duration `yaml:"for"`
	Severity string        `yaml:"severity"`
	To       []string      `yaml:"to"`
}

// Parse checks settings. The error joins a [*Problem] for each mistake. It reads no file that a
// receiver names: [notify.New] does.
func Parse(s Settings) (*Config, error) {
	d := newDecoder(s.File)
	var f fileConfig
	if s.Node != nil && s.Node.Tag != "!!null" {
		d.value(s.Node, reflect.ValueOf(&f).Elem(), "alerts")
	}
	c := &Config{GroupWait: StandardGroupWait, Repeat: StandardRepeat, MaxPerHour: StandardMaxPerHour}
	if len(d.problems) == 0 { // a value of a wrong type would be reported twice
		d.numbers(&f, c)
		d.quiet(&f, c)
		d.receivers(&f, c)
		d.fromVariables(&s, c)
		d.rules(&f, c)
	}
	c.publicURL(s.PublicURL, d)
	if err := errors.Join(d.problems...); err != nil {
		return nil, err
	}
	return c, nil
}

func (d *decoder) numbers(f *fileConfig, c *Config) {
	for _, one := range []struct {
		name      string
		given     *time.Duration
		into      *time.Duration
		low, high time.Duration
		allowed   string
	}{
		{"group_wait", f.GroupWait, &c.GroupWait, 0, time.Hour, "allowed are 0 to 1h"},
		{"repeat", f.Repeat, &c.Repeat, time.Minute, 365 * 24 * time.Hour, "allowed are 0 (never) and 1m to 365d"},
	} {
		if one.given == nil {
			continue
		}
		if v := *one.given; v != 0 && (v < one.low || v > one.high) {
			d.report("alerts."+one.name, fmt.Errorf("%s: %s", v, one.allowed))
		}
		*one.into = *one.given
	}
	if f.MaxPerHour != nil {
		if c.MaxPerHour = *f.MaxPerHour; c.MaxPerHour < 1 || c.MaxPerHour > 3600 {
			d.report("alerts.max_per_hour", fmt.Errorf("%d: allowed are 1 to 3600", c.MaxPerHour))
		}
	}
}

func (d *decoder) quiet(f *fileConfig, c *Config) {
	for i, q := range f.Quiet {
		path := fmt.Sprintf("alerts.quiet[%d]", i)
		parsed, field, err := parseQuiet(q)
		if err != nil {
			d.report(path+"."+field, err)
			continue
		}
		c.Quiet = append(c.Quiet, parsed)
	}
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// name checks the name of an entry, which no other entry before it has.
func (d *decoder) name(path, name string, before []string) {
	switch {
	case name == "":
		d.report(path, errors.New("it has no name; allowed are a-z, 0-9, dot, underscore and hyphen, up to 63"))
	case !nameForm.MatchString(name):
		d.report(path+".name", fmt.Errorf("%s: allowed are a-z, 0-9, dot, underscore and hyphen, up to 63", model.Quoted(name)))
	case slices.Contains(before, name):
		d.report(path+".name", fmt.Errorf("%s: another entry has this name", model.Quoted(name)))
	}
}

func (d *decoder) receivers(f *fileConfig, c *Config) {
	var names []string
	for i, r := range f.Receivers {
		path := fmt.Sprintf("alerts.receivers[%d]", i)
		d.name(path, r.Name, names)
		names = append(names, r.Name)
		kinds := 0
		for _, set := range []bool{r.Webhook != nil, r.Email != nil, r.Shoutrrr != nil, r.Alertmanager != nil} {
			if set {
				kinds++
			}
		}
		if kinds != 1 {
			d.report(path, fmt.Errorf("it has %d of webhook, email, shoutrrr and alertmanager; allowed is one of them", kinds))
		}
	}
	c.Receivers = slices.Clone(f.Receivers)
}

// fromVariables adds the receivers of ALERT_WEBHOOK and ALERT_EMAIL.
func (d *decoder) fromVariables(s *Settings, c *Config) {
	add := func(r notify.ReceiverConfig, variable string) {
		if c.kind(r.Name) != "" {
			d.report("alerts.receivers", fmt.Errorf("the name %s is that of the receiver that %s makes; allowed is another one", r.Name, variable))
		}
		c.Receivers = append(c.Receivers, r)
	}
	if s.Webhook != "" {
		add(notify.ReceiverConfig{Name: WebhookName, Webhook: &notify.WebhookConfig{URL: notify.NewSecret(s.Webhook)}}, "ALERT_WEBHOOK")
	}
	if s.Email != "" {
		to := strings.FieldsFunc(s.Email, func(r rune) bool { return r == ',' || r == ' ' })
		add(notify.ReceiverConfig{Name: EmailName, Email: &notify.EmailConfig{To: to, SMTPURLEnv: s.SMTPVariable}}, "ALERT_EMAIL")
	}
}

func (d *decoder) rules(f *fileConfig, c *Config) {
	if c.Standard = len(f.Rules) == 0; c.Standard {
		f.Rules = standardRules
	}
	var names, used []string
	for i, r := range f.Rules {
		path := fmt.Sprintf("alerts.rules[%d]", i)
		d.name(path, r.Name, names)
		names = append(names, r.Name)
		rule := d.rule(path, r, c)
		used = append(used, rule.To...)
		c.Rules = append(c.Rules, rule)
	}
	for i := range c.Receivers {
		if name := c.Receivers[i].Name; !slices.Contains(used, name) {
			c.Warnings = append(c.Warnings, fmt.Sprintf("alerts: no rule names the receiver %s in its to: it receives nothing.", name))
		}
	}
	if len(c.Receivers) == 0 && !c.Standard {
		d.report("alerts.receivers", errors.New("there is none; allowed is at least one, or ALERT_WEBHOOK or ALERT_EMAIL"))
	}
}

// maxFor bounds the field for.
const maxFor = 7 * 24 * time.Hour

func (d *decoder) rule(path string, r fileRule, c *Config) *Rule {
	rule := &Rule{Name: r.Name, For: r.For, To: r.To, Severity: notify.Warning}
	if r.For < 0 || r.For > maxFor {
		d.report(path+".for", fmt.Errorf("%s: allowed are 0 to 7d", r.For))
	}
	var err error
	if r.Severity != "" {
		if rule.Severity, err = notify.ParseSeverity(r.Severity); err != nil {
			d.report(path+".severity", fmt.Errorf("%s: %w", model.Quoted(r.Severity), err))
		}
	}
	if err := rule.compile(r.When); err != nil {
		d.report(path+".when", err)
	}
	var receivers []string
	for i := range c.Receivers {
		receivers = append(receivers, c.Receivers[i].Name)
	}
	if len(rule.To) == 0 {
		rule.To = receivers
	}
	for _, name := range rule.To {
		if !slices.Contains(receivers, name) && len(receivers) > 0 {
			text := "there is no receiver " + model.Quoted(name) + "; allowed are " + strings.Join(receivers, ", ")
			if near := nearest(name, receivers); near != "" {
				text += "; did you mean " + near + "?"
			}
			d.report(path+".to", errors.New(text))
		}
	}
	rule.To = slices.Compact(slices.Sorted(slices.Values(rule.To)))
	return rule
}

func (c *Config) publicURL(text string, d *decoder) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		d.problems = append(d.problems, &Problem{Entry: "--public-url", Err: fmt.Errorf("%s: allowed is http://HOST or https://HOST, with a port and a path where it has them", model.Quoted(text))})
		return
	}
	c.PublicURL = strings.TrimRight(text, "/")
}

// Summary describes the settings in a few words, without a secret.
func (c *Config) Summary() string {
	count := func(n int, what string) string {
		if n != 1 {
			what += "s"
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	rules := count(len(c.Rules), "rule")
	if c.Standard {
		rules = "the standard rules"
	}
	return rules + ", " + count(len(c.Receivers), "receiver")
}
