package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
	"github.com/nicholas-fedor/shoutrrr/pkg/util/jsonclient"
)

// chat is a service of shoutrrr. The library takes no context and has no bound on the time of
// most of its services: a try that does not end in time is left to itself, at most maxLeft of
// them.
type chat struct {
	name string
	url  source
	log  types.StdLogger
	// left has one element for each try that has not ended.
	left chan struct{}
}

// maxLeft bounds the tries of one receiver that have not ended.
const maxLeft = 4

// The most bytes of text for a service. What is longer is refused by some, or is cut where nobody
// can see it.
const chatText = 3500

var chatTexts = map[string]int{"pushover": 1000, "wecom": 1800, "signal": 1900, "ifttt": 1500}

func newChat(name string, c *ShoutrrrConfig, o *Options) (*chat, error) {
	boundClient()
	s := &chat{name: name, left: make(chan struct{}, maxLeft), log: quiet}
	var err error
	if s.url, err = urlSource(Secret{}, c.URLFile, c.URLEnv, o); err != nil {
		return nil, err
	}
	if o.Log != nil {
		s.log = printer(o.Log)
	}
	text, err := s.url.line()
	if err != nil {
		return nil, fmt.Errorf("the URL: %w", err)
	}
	service, err := parseService(text)
	if err != nil {
		return nil, err
	}
	if service.scheme == "logger" && o.Log == nil {
		return nil, errors.New("the URL: the service logger has no log here; allowed are the other services")
	}
	if service.scheme == "matrix" { // its first step is to log in
		return s, nil
	}
	return s, service.begin(s.log)
}

// boundClient bounds the requests of the services that use [http.DefaultClient], to which the
// library gives no bound: in time, and against redirects, which would carry the message to a host
// that nobody has configured. Nothing else of portwatcher uses that client.
var boundClient = sync.OnceFunc(func() {
	http.DefaultClient.Timeout = Timeout
	http.DefaultClient.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("redirects are not followed")
	}
})

// service is a service of shoutrrr by its URL.
type service struct {
	types.Service
	scheme string
	url    *url.URL
}

// parseService returns the service of a URL, before its first step. The error contains nothing
// of the URL but the scheme of a service that exists.
func parseService(text string) (*service, error) {
	var services router.ServiceRouter
	scheme, u, err := services.ExtractServiceName(text)
	if err != nil {
		return nil, errors.New("the URL is not valid; allowed are the URLs of shoutrrr, such as ntfy://host/topic")
	}
	found, err := services.NewService(scheme)
	if err != nil {
		return nil, errors.New("the URL begins with the name of no service of shoutrrr; allowed are URLs such as ntfy://host/topic, telegram://token@telegram?chats=name")
	}
	s := &service{Service: found, scheme: strings.ToLower(scheme), url: u}
	if u.Scheme == scheme {
		return s, nil
	}
	custom, is := found.(types.CustomURLService)
	if !is {
		return nil, fmt.Errorf("the URL: the service %s takes no other URL after a +", s.scheme)
	}
	if s.url, err = custom.GetConfigURLFromCustom(u); err != nil {
		return nil, errors.New("the URL: " + scrubURL(text).text(err.Error()))
	}
	return s, nil
}

func scrubURL(text string) *scrubber {
	var secrets scrubber
	secrets.addURL(text)
	return &secrets
}

// begin does the first step of a service: it reads the URL.
func (s *service) begin(log types.StdLogger) error {
	if s.scheme != "logger" {
		log = quiet // what services log contains their URLs
	}
	if err := s.Initialize(s.url, log); err != nil {
		return fmt.Errorf("the URL of the service %s is not valid: %s", s.scheme, scrubURL(s.url.String()).text(err.Error()))
	}
	return nil
}

// Name implements [Receiver].
func (s *chat) Name() string { return s.name }

// Kind implements [Receiver].
func (s *chat) Kind() string { return KindShoutrrr }

// Close implements [Receiver]. A try that has not ended ends with its own bounds.
func (s *chat) Close() error { return nil }

// Send implements [Receiver].
func (s *chat) Send(ctx context.Context, n *Notification) Outcome {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	text, err := s.url.line()
	if err != nil {
		return Outcome{Err: fmt.Errorf("the URL: %w", err)}
	}
	secrets := scrubURL(text)
	service, err := parseService(text)
	if err != nil {
		return Outcome{Err: err}
	}
	secrets.addURL(service.url.String())
	select {
	case s.left <- struct{}{}:
	default:
		return Outcome{Err: fmt.Errorf("%d earlier tries have not ended: the service %s does not answer", maxLeft, service.scheme)}
	}
	result := make(chan error, 1)
	go func() {
		defer func() { <-s.left }()
		result <- deliver(service, s.log, n)
	}()
	select {
	case err = <-result:
	case <-ctx.Done():
		return Outcome{Err: errors.New(reason(ctx, ctx.Err()))}
	}
	if err == nil {
		return Outcome{Delivered: true}
	}
	return chatOutcome(ctx, err, secrets)
}

// deliver sends one message. A panic of the library is an error of this try.
func deliver(s *service, log types.StdLogger, n *Notification) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("shoutrrr failed: %v", r)
		}
	}()
	if err := s.begin(log); err != nil {
		return err
	}
	text, params := chatMessage(s, n)
	return s.Send(text, &params)
}

// titled are the services that show a title beside the text. Some others have the setting, and
// drop it.
var titled = []string{
	"bark", "discord", "gotify", "join", "lark", "ntfy", "opsgenie", "pushbullet", "pushover", "slack", "teams", "telegram",
}

// chatMessage is the text for a service, and the title beside it where the service shows one.
func chatMessage(s *service, n *Notification) (string, types.Params) {
	m := compose(n)
	title, text := unmentioned(m.title), unmentioned(m.body())
	params := types.Params{}
	switch {
	case slices.Contains(titled, s.scheme):
		params.SetTitle(title)
	case s.scheme == "smtp":
		params["subject"] = title
	case s.scheme == "generic": // its templates may have a title
		params.SetTitle(title)
		text = title + "\n" + text
	default:
		text = title + "\n" + text
	}
	most, found := chatTexts[s.scheme]
	if !found {
		most = chatText
	}
	return cut(strings.TrimSpace(text), most), params
}

// chatOutcome is the outcome of an error, with the status and the answer where the library has
// them.
func chatOutcome(ctx context.Context, err error, secrets *scrubber) Outcome {
	var o Outcome
	if failed, ok := errors.AsType[jsonclient.Error](err); ok {
		o.Status, o.Response = failed.StatusCode, secrets.text(failed.Body[:min(len(failed.Body), maxBody)])
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed
	}
	o.Err = errors.New(secrets.text(reason(ctx, err)))
	return o
}

// quiet drops what the library logs.
var quiet types.StdLogger = log.New(io.Discard, "", 0)

// printer is a logger that gives each line to a function.
type printer func(text string)

func (p printer) lines(text string) {
	for line := range strings.Lines(text) {
		p(clean(strings.TrimRight(line, "\r\n")))
	}
}

// Print implements [types.StdLogger].
func (p printer) Print(values ...any) { p.lines(fmt.Sprint(values...)) }

// Printf implements [types.StdLogger].
func (p printer) Printf(format string, values ...any) { p.lines(fmt.Sprintf(format, values...)) }

// Println implements [types.StdLogger].
func (p printer) Println(values ...any) { p.lines(fmt.Sprint(values...)) }
