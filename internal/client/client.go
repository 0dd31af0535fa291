// Package client talks to a running instance's HTTP API.
//
// A [Client] is safe for concurrent use. Every error names the server and the request; an
// answer that is an error wraps an [*api.Problem]. The token goes into a header, never into an
// address or an error.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"portwatcher/internal/server/api"
)

const (
	// requestTimeout bounds a request that the server can answer at once.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds what is read of an answer: some 100,000 endpoints.
	maxAnswer = 64 << 20
)

// Options are the arguments of [New].
type Options struct {
	// Server is http://HOST:PORT or https://HOST:PORT, with a path where a proxy serves it
	// under one.
	Server string
	// TokenFile holds the token; empty sends none. It is read for each request, so that a new
	// token is used at once.
	TokenFile string
	// CAFile holds PEM certificates to trust instead of the system's; empty uses the system's.
	CAFile string
}

// Client sends requests to one server.
type Client struct {
	base      *url.URL
	tokenFile string
	transport *http.Transport
	http      *http.Client
	timing    timing
}

// New checks the options; it does not connect. Its errors name the option that is wrong.
func New(o Options) (*Client, error) {
	base, err := parseServer(o.Server)
	if err != nil {
		return nil, err
	}
	c := &Client{base: base, tokenFile: o.TokenFile, timing: defaultTiming}
	c.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	if o.CAFile != "" {
		pool, err := readCertificates(o.CAFile)
		if err != nil {
			return nil, err
		}
		c.transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if _, err := c.token(); err != nil {
		return nil, err
	}
	c.http = &http.Client{
		Transport: c.transport,
		// A redirect could send the token elsewhere; the API has none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes idle connections. Calls under way end with their contexts.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Server returns the server's address.
func (c *Client) Server() string { return c.base.String() }

func parseServer(server string) (*url.URL, error) {
	base, err := url.Parse(server)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" ||
		base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		// The error does not repeat the address, which may contain a password.
		return nil, errors.New("the server's address is invalid: allowed are http://HOST:PORT and https://HOST:PORT, with the path under which a proxy serves it, and without user")
	}
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = ""
	return base, nil
}

func readCertificates(path string) (*x509.CertPool, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s: it contains no certificate in PEM form", path)
	}
	return pool, nil
}

// token returns the content of the token file, or "" without one.
func (c *Client) token() (string, error) {
	if c.tokenFile == "" {
		return "", nil
	}
	content, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", fmt.Errorf("token file %s: it is empty", c.tokenFile)
	}
	return token, nil
}

// Status returns the status of the instance.
func (c *Client) Status(ctx context.Context) (*api.Status, error) {
	return get[api.Status](ctx, c, api.PathStatus, nil, requestTimeout)
}

// Containers returns running containers; query has the parameters of the API.
func (c *Client) Containers(ctx context.Context, query url.Values) (*api.Containers, error) {
	return get[api.Containers](ctx, c, api.PathContainers, query, requestTimeout)
}

// Ports returns open endpoints; query has the parameters of the API.
func (c *Client) Ports(ctx context.Context, query url.Values) (*api.Ports, error) {
	return get[api.Ports](ctx, c, api.PathPorts, query, requestTimeout)
}

// Events returns one page of events; query has the parameters of the API.
func (c *Client) Events(ctx context.Context, query url.Values) (*api.Events, error) {
	return get[api.Events](ctx, c, api.PathEvents, query, requestTimeout)
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values, timeout time.Duration) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := c.do(ctx, path, query, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer T
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return nil, c.failed(path, fmt.Errorf("read the answer: %w", err))
	}
	return &answer, nil
}

// do sends a request. An answer other than 200 is an error that wraps an [*api.Problem]. The
// caller closes the body.
func (c *Client) do(ctx context.Context, path string, query url.Values, header http.Header) (*http.Response, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	target := *c.base
	target.Path, target.RawQuery = target.Path+path, query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, c.failed(path, err)
	}
	request.Header = header
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.failed(path, err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, c.failed(path, readProblem(response))
	}
	return response, nil
}

func (c *Client) failed(path string, err error) error {
	var transport *url.Error
	if errors.As(err, &transport) {
		err = transport.Err // the rest of its text repeats method and address
	}
	return fmt.Errorf("request %s of portwatcher at %s: %w", path, c.base, err)
}

// readProblem returns an answer as an error, also where a proxy gave it.
func readProblem(response *http.Response) *api.Problem {
	problem := &api.Problem{Type: "about:blank", Title: http.StatusText(response.StatusCode), Detail: response.Status}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err == nil && kind == api.MediaTypeProblem {
		var given api.Problem
		if json.NewDecoder(io.LimitReader(response.Body, 64<<10)).Decode(&given) == nil {
			problem = &given
		}
	}
	problem.Status = response.StatusCode
	if problem.Status == http.StatusUnauthorized {
		problem.Detail += " (--token-file names the file that holds the token)"
	}
	return problem
}
