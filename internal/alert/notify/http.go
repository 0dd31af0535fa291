package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/filewatch"
)

// The bounds of an answer, in bytes: what is read of its body, and of its header.
const (
	maxBody   = 4 << 10
	maxHeader = 64 << 10
)

// maxRetryAfter bounds Outcome.RetryAfter: no receiver can put off a notification for longer.
const maxRetryAfter = 24 * time.Hour

// request is one POST request.
type request struct {
	url    string
	header http.Header
	body   []byte
	// user and password are for basic authentication; both empty for none.
	user, password string
}

// poster makes POST requests, each on a connection of its own: between two alerts every
// connection would have been closed, and a request on a connection that the server closes at
// that moment is lost.
type poster struct {
	// ca is a file with the certificates to trust; empty for those of the system.
	ca      string
	version string
}

// post makes one try. A status of 2xx is delivered, whatever comes after it. Everything else is
// an error to be tried again, as Standard Webhooks has it, also 4xx: who repairs a token, a path
// or a proxy within the time of the retries gets the alerts of that time. 410 alone is final.
//
// secrets are replaced in the answer and in the error, which wraps nothing.
func (p *poster) post(ctx context.Context, r *request, secrets *scrubber) Outcome {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	client, done, err := p.client()
	if err != nil {
		return Outcome{Err: err}
	}
	defer done()
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil {
		return Outcome{Err: errors.New("the request: " + secrets.text(reason(ctx, err)))}
	}
	for name, values := range r.header {
		call.Header[name] = values
	}
	call.Header.Set("User-Agent", "portwatcher/"+p.version)
	if r.user != "" {
		call.SetBasicAuth(r.user, r.password)
	}
	answer, err := client.Do(call)
	if err != nil {
		return Outcome{Err: errors.New(secrets.text(reason(ctx, err)))}
	}
	defer answer.Body.Close() // it was only read
	// The status decides; what cannot be read of the text for people is left out.
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if len(text) == maxBody {
		text = text[:maxBody/2] // its end may be the beginning of a secret
	}
	return classify(answer, secrets, string(text))
}

// classify is the outcome of an answer.
func classify(answer *http.Response, secrets *scrubber, text string) Outcome {
	o := Outcome{Status: answer.StatusCode, Response: secrets.text(text)}
	if answer.StatusCode/100 == 2 {
		o.Delivered = true
		return o
	}
	status := strconv.Itoa(answer.StatusCode) + " " + http.StatusText(answer.StatusCode)
	o.RetryAfter = retryAfter(answer.Header.Get("Retry-After"), time.Now())
	switch {
	case answer.StatusCode == http.StatusGone:
		o.Gone = true
		o.Err = fmt.Errorf("it answered %s: the receiver is gone, and nothing is sent to it again", status)
	case answer.StatusCode/100 == 3:
		o.Err = fmt.Errorf("it answered %s%s: redirects are not followed; allowed is the final address", status, location(answer, secrets))
	default:
		o.Err = fmt.Errorf("it answered %s; allowed is 2xx", status)
	}
	return o
}

// location names where a redirect leads, without secrets: those of the receiver's URL, and those
// that only the answer has.
func location(answer *http.Response, secrets *scrubber) string {
	u, err := answer.Location()
	if err != nil {
		return ""
	}
	return " with a redirect to " + secrets.text(u.Scheme+"://"+u.Host)
}

// retryAfter reads the header: seconds, or a date
// (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after). It is 0 for another text.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// reason is why a try failed, without the URL that net/http puts before it.
func reason(ctx context.Context, err error) string {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err
	}
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && timeout.Timeout() {
		return fmt.Sprintf("there was no answer in time (%s)", Timeout)
	}
	if ctx.Err() != nil {
		return "the try was stopped before it had an answer"
	}
	return err.Error()
}

// client returns a client for one request; done closes its connections.
func (p *poster) client() (client *http.Client, done func(), err error) {
	config := &tls.Config{}
	if config.RootCAs, err = readCA(p.ca); err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		MaxResponseHeaderBytes: maxHeader,
	}
	client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, transport.CloseIdleConnections, nil
}

// readCA returns the certificates of a file in PEM, nil (those of the system) for no file.
func readCA(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	content, err := filewatch.Read(file, filewatch.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("ca_file: %q has no certificate; allowed are certificates in PEM", file)
	}
	return pool, nil
}

// checkURL checks an address of HTTP. The error does not contain it.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("it is no address of HTTP; allowed is https://host/path or http://host/path")
	}
	return nil
}
