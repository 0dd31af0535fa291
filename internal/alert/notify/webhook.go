package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// webhook is an HTTP receiver.
type webhook struct {
	name       string
	url        source
	key, token source
	poster     poster
	encode     func(*Notification) (content, error)
}

func newWebhook(name string, c *WebhookConfig, o *Options) (*webhook, error) {
	w := &webhook{name: name, poster: poster{ca: c.CAFile, version: o.Version}}
	var err error
	if w.url, err = urlSource(c.URL, c.URLFile, c.URLEnv, o); err != nil {
		return nil, err
	}
	if w.key, err = newSource("the key", field{"secret_file", c.SecretFile}, field{"secret_env", c.SecretEnv}, o); err != nil {
		return nil, err
	}
	if w.token, err = newSource("the token", field{"token_file", c.TokenFile}, field{"token_env", c.TokenEnv}, o); err != nil {
		return nil, err
	}
	format, err := checkFormat(c.Format)
	if err != nil {
		return nil, err
	}
	if format != FormatTemplate && (c.Template != "" || c.ContentType != "") {
		return nil, fmt.Errorf("format: %q; allowed is template where template or content_type is set", format)
	}
	if w.encode = encoders[format]; format == FormatTemplate {
		if w.encode, err = newTemplate(c.Template, c.ContentType); err != nil {
			return nil, err
		}
	}
	if _, err = readCA(c.CAFile); err != nil {
		return nil, err
	}
	_, _, err = w.credentials(&scrubber{})
	return w, err
}

// urlSource is the one of three places that has a URL. The error contains none.
func urlSource(given Secret, file, variable string, o *Options) (source, error) {
	s, err := newSource("the URL", field{"url_file", file}, field{"url_env", variable}, o)
	if err == nil && !given.Empty() && s.set() {
		err = errors.New("the URL: both url and url_file or url_env are set; allowed is one of them")
	}
	if s.given = given; err == nil && !s.set() {
		err = errors.New("the URL is missing; allowed is one of url, url_file and url_env")
	}
	return s, err
}

// Name implements [Receiver].
func (w *webhook) Name() string { return w.name }

// Kind implements [Receiver].
func (w *webhook) Kind() string { return KindWebhook }

// Close implements [Receiver]. Each try closes its own connection.
func (w *webhook) Close() error { return nil }

// Send implements [Receiver].
func (w *webhook) Send(ctx context.Context, n *Notification) Outcome {
	var secrets scrubber
	r, keys, err := w.credentials(&secrets)
	if err != nil {
		return Outcome{Err: err}
	}
	c, err := w.encode(n)
	if err != nil {
		return Outcome{Err: err}
	}
	for name, values := range c.header {
		r.header[name] = values
	}
	r.body = c.body
	r.header.Set("Content-Type", c.mediaType)
	sign(r.header, keys, webhookID(n.ID), time.Now(), c.body)
	return w.poster.post(ctx, r, &secrets)
}

// credentials reads the secrets as they are now, and returns a request with URL and token, and
// the keys.
func (w *webhook) credentials(secrets *scrubber) (*request, [][]byte, error) {
	r := &request{header: http.Header{}}
	var err error
	if r.url, err = w.url.line(); err != nil {
		return nil, nil, fmt.Errorf("the URL: %w", err)
	}
	secrets.addURL(r.url)
	if err := checkURL(r.url); err != nil {
		return nil, nil, fmt.Errorf("the URL: %w", err)
	}
	if w.token.set() {
		token, err := w.token.line()
		if err != nil {
			return nil, nil, fmt.Errorf("the token: %w", err)
		}
		secrets.add(token)
		r.header.Set("Authorization", "Bearer "+token)
	}
	if !w.key.set() {
		return r, nil, nil
	}
	text, err := w.key.read()
	if err != nil {
		return nil, nil, fmt.Errorf("the key: %w", err)
	}
	secrets.add(text)
	keys, err := signingKeys(text)
	if err != nil {
		return nil, nil, fmt.Errorf("the key: %w", err)
	}
	return r, keys, nil
}
