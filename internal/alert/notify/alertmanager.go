package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// alertmanager sends alerts to the API v2 of one or several Alertmanagers.
//
// An alert's identity are its labels, which follow from Alert.Key, rule, severity and host. A
// firing alert ends by itself Options.Hold after its last try: where portwatcher dies, its
// alerts do not last for ever.
type alertmanager struct {
	name            string
	urls            []string
	labels          map[string]string
	username        string
	password, token source
	poster          poster
	hold            time.Duration
}

// labelName is the name of a label (https://prometheus.io/docs/concepts/data_model/).
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func newAlertmanager(name string, c *AlertmanagerConfig, o *Options) (*alertmanager, error) {
	a := &alertmanager{
		name: name, urls: c.URLs, labels: c.Labels, username: c.Username, poster: poster{ca: c.CAFile, version: o.Version}, hold: o.Hold,
	}
	if a.hold == 0 {
		a.hold = StandardHold
	}
	if (c.URL == "") == (len(c.URLs) == 0) {
		return nil, errors.New("url: allowed is one of url and urls, with the address of an Alertmanager such as http://alertmanager:9093")
	}
	if c.URL != "" {
		a.urls = []string{c.URL}
	}
	for i, text := range a.urls {
		u, err := url.Parse(text)
		if checkURL(text) != nil || err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("url: the address of Alertmanager %d of %d is not valid; allowed is http://host:9093 or https://…, "+
				"without user, password and query: username, password_file and token_file are fields of their own", i+1, len(a.urls))
		}
	}
	for label := range c.Labels {
		if !labelName.MatchString(label) {
			return nil, fmt.Errorf("labels: %q is no name of a label; allowed are letters, digits and _, and no digit first", label)
		}
	}
	var err error
	if a.password, err = newSource("the password", field{"password_file", c.PasswordFile}, field{"password_env", c.PasswordEnv}, o); err != nil {
		return nil, err
	}
	if a.token, err = newSource("the token", field{"token_file", c.TokenFile}, field{"token_env", c.TokenEnv}, o); err != nil {
		return nil, err
	}
	if (a.username != "") != a.password.set() {
		return nil, errors.New("username: allowed is both username and password_file (or password_env), or neither")
	}
	if a.username != "" && a.token.set() {
		return nil, errors.New("token_file: allowed is either a token, or username and password")
	}
	if _, err = readCA(c.CAFile); err != nil {
		return nil, err
	}
	_, err = a.request(&scrubber{})
	return a, err
}

// Name implements [Receiver].
func (a *alertmanager) Name() string { return a.name }

// Kind implements [Receiver].
func (a *alertmanager) Kind() string { return KindAlertmanager }

// Close implements [Receiver]. Each try closes its own connection.
func (a *alertmanager) Close() error { return nil }

// Send implements [Receiver]. It sends to all Alertmanagers at once: the members of a cluster do
// not pass alerts on. As with Prometheus it is delivered when one has taken it; the next
// repetition gives it to those that were down. Response names those that have not taken it.
func (a *alertmanager) Send(ctx context.Context, n *Notification) Outcome {
	var secrets scrubber
	r, err := a.request(&secrets)
	if err != nil {
		return Outcome{Err: err}
	}
	if r.body, err = encodeJSON(a.alerts(n, time.Now())); err != nil {
		return Outcome{Err: err}
	}
	outcomes := make([]Outcome, len(a.urls))
	var all sync.WaitGroup
	for i, address := range a.urls {
		one := *r
		one.url = strings.TrimRight(address, "/") + "/api/v2/alerts"
		all.Go(func() { outcomes[i] = a.poster.post(ctx, &one, &secrets) })
	}
	all.Wait()
	return a.merge(outcomes)
}

// merge is the outcome of several Alertmanagers.
func (a *alertmanager) merge(outcomes []Outcome) Outcome {
	if len(outcomes) == 1 {
		outcomes[0].Gone = false // it may be another server behind the same address
		return outcomes[0]
	}
	var merged Outcome
	var failed []string
	for i, o := range outcomes {
		switch {
		case o.Delivered:
			if !merged.Delivered {
				merged = o
			}
			continue
		case !merged.Delivered:
			merged.Status, merged.RetryAfter = o.Status, max(merged.RetryAfter, o.RetryAfter)
		}
		failed = append(failed, a.urls[i]+": "+o.Err.Error())
	}
	if len(failed) == 0 {
		return merged
	}
	text := (&scrubber{}).text(fmt.Sprintf("%d of %d have not taken it: %s", len(failed), len(outcomes), strings.Join(failed, "; ")))
	if merged.Delivered {
		merged.Response, merged.Warning = text, text
	} else {
		merged.Err = errors.New(text)
	}
	return merged
}

// request returns a request without URL and body.
func (a *alertmanager) request(secrets *scrubber) (*request, error) {
	r := &request{header: http.Header{"Content-Type": {"application/json"}}}
	if a.token.set() {
		token, err := a.token.line()
		if err != nil {
			return nil, fmt.Errorf("the token: %w", err)
		}
		secrets.add(token)
		r.header.Set("Authorization", "Bearer "+token)
	}
	if a.username != "" {
		password, err := a.password.line()
		if err != nil {
			return nil, fmt.Errorf("the password: %w", err)
		}
		secrets.add(password, a.username+":"+password)
		r.user, r.password = a.username, password
	}
	return r, nil
}

// postableAlert is an alert of the API v2
// (https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml).
type postableAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (a *alertmanager) alerts(n *Notification, now time.Time) []postableAlert {
	alerts := make([]postableAlert, len(n.Alerts))
	for i := range n.Alerts {
		one := &n.Alerts[i]
		it := describe(n, one)
		p := postableAlert{Labels: a.labelsOf(n, one), StartsAt: one.Since.UTC(), EndsAt: now.Add(a.hold).UTC(), GeneratorURL: it.url}
		if one.Status == Resolved {
			// An end in the future would let it fire on.
			if p.EndsAt = one.Until.UTC(); one.Until.IsZero() || one.Until.After(now) {
				p.EndsAt = now.UTC()
			}
		}
		if p.StartsAt.After(p.EndsAt) || one.Since.IsZero() {
			p.StartsAt = p.EndsAt
		}
		var text strings.Builder
		it.write(&text)
		p.Annotations = map[string]string{"summary": it.title, "description": strings.TrimSpace(text.String())}
		alerts[i] = p
	}
	return alerts
}

// labelsOf are the labels of an alert: the same when it begins, lasts and ends.
func (a *alertmanager) labelsOf(n *Notification, one *Alert) map[string]string {
	labels := map[string]string{}
	for name, value := range a.labels {
		labels[name] = value
	}
	for name, value := range identityLabels(one.Key) {
		if name != "rule" && labelName.MatchString(name) {
			labels[name] = value
		}
	}
	labels["alertname"], labels["severity"], labels["host"] = one.Rule, string(one.Severity), n.Host
	if n.Test {
		labels["test"] = strconv.FormatBool(true)
	}
	for name, value := range labels {
		if labels[name] = strings.ToValidUTF8(clean(value), "?"); value == "" {
			delete(labels, name) // an empty label is none
		}
	}
	return labels
}
