package notify

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
)

// secretOfChat is a part of each URL below that is a secret.
const secretOfChat = "5ec7e75ec7e75ec7e75ec7e7"

// chatURLs has a URL of each service. HOST is a server of the test.
var chatURLs = map[string]string{
	"bark":       "bark://:" + secretOfChat + "@HOST/?scheme=http",
	"discord":    "discord://" + secretOfChat + "@123456789",
	"generic":    "generic+http://HOST/" + secretOfChat,
	"gotify":     "gotify://HOST/Aaa" + secretOfChat[:12] + "?disabletls=yes",
	"googlechat": "googlechat://chat.googleapis.com/v1/spaces/FOO/messages?key=bar&token=" + secretOfChat,
	"hangouts":   "hangouts://chat.googleapis.com/v1/spaces/FOO/messages?key=bar&token=" + secretOfChat,
	"ifttt":      "ifttt://" + secretOfChat + "/?events=event1",
	"lark":       "lark://open.larksuite.com/" + secretOfChat,
	"join":       "join://shoutrrr:" + secretOfChat + "@join/?devices=device",
	"logger":     "logger://",
	"matrix":     "matrix://user:" + secretOfChat + "@HOST/?disableTLS=yes&rooms=!room:example.org",
	"mattermost": "mattermost://HOST/" + secretOfChat + "?disabletls=yes",
	"notifiarr":  "notifiarr://" + secretOfChat + "?channel=123456789",
	"ntfy":       "ntfy://user:" + secretOfChat + "@HOST/topic?scheme=http",
	"opsgenie":   "opsgenie://api.opsgenie.com/" + secretOfChat,
	"pagerduty":  "pagerduty://events.pagerduty.com/" + secretOfChat + secretOfChat[:8],
	"pushbullet": "pushbullet://" + secretOfChat + secretOfChat[:10],
	"pushover":   "pushover://shoutrrr:" + secretOfChat + "@userkey/?devices=device",
	"rocketchat": "rocketchat://rocketchat.example.org/" + secretOfChat[:12] + "/" + secretOfChat,
	"signal":     "signal://user:" + secretOfChat + "@HOST/+1234567890/+1987654321?disabletls=yes",
	"slack":      "slack://hook:AAAAAAAAA-BBBBBBBBB-" + secretOfChat + "@webhook",
	"smtp":       "smtp://user:" + secretOfChat + "@HOST/?fromAddress=a@example.org&toAddresses=b@example.org&useStartTLS=no&encryption=None&auth=None",
	"teams": "teams://11111111-4444-4444-8444-cccccccccccc@22222222-4444-4444-8444-cccccccccccc/33333333012222222222333333333344/" +
		"44444444-4444-4444-8444-cccccccccccc/V2" + secretOfChat + secretOfChat[:22] + "?host=test.webhook.office.com",
	"telegram": "telegram://123456789:AAAAAAAAAAA" + secretOfChat + "@telegram?chats=channel-1",
	"wecom":    "wecom://693axxx6-7aoc-4bc4-97a0-" + secretOfChat[:12],
	"zulip":    "zulip://bot%40example.org:" + secretOfChat + "@example.zulipchat.com?stream=ops&topic=alerts",
}

// toServer sends every request that goes through it to one server.
type toServer struct{ address string }

// RoundTrip implements [http.RoundTripper].
func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Host", r.URL.Host)
	r.URL.Scheme, r.URL.Host = "http", s.address
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}

// chatServer stands for the servers of all services, which the test cannot reach: the default
// transport leads there.
func chatServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	transport := http.DefaultTransport
	http.DefaultTransport = toServer{address}
	t.Cleanup(func() { http.DefaultTransport = transport })
	return address
}

func chatReceiver(t *testing.T, text string, log func(string)) Receiver {
	t.Helper()
	r, err := New(ReceiverConfig{Name: "chat", Shoutrrr: &ShoutrrrConfig{URLEnv: "CHAT"}}, Options{Getenv: func(string) string { return text }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEveryChatService sends through each service of shoutrrr: the message arrives, and where
// the server refuses it the error is there, without the URL's secret.
func TestEveryChatService(t *testing.T) {
	services := (&router.ServiceRouter{}).ListServices()
	if len(services) < 20 {
		t.Fatalf("only the services %q", services)
	}
	slices.Sort(services)
	for _, name := range services {
		t.Run(name, func(t *testing.T) {
			template := chatURLs[name]
			if template == "" {
				t.Fatal("the test has no URL of this service")
			}
			var mutex sync.Mutex
			var bodies bytes.Buffer
			code := http.StatusOK
			address := chatServer(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mutex.Lock()
				defer mutex.Unlock()
				plain, err := url.QueryUnescape(r.URL.RawQuery + "\n" + string(body) + "\n" + r.Header.Get("Title"))
				if err != nil {
					plain = string(body)
				}
				bodies.WriteString(plain)
				answerChat(w, r, name, code, body)
			})
			if name == "smtp" {
				var taken func() []string
				address, taken = smtpScript(t, func(command string) string {
					mutex.Lock()
					defer mutex.Unlock()
					if code != http.StatusOK && strings.HasPrefix(command, "MAIL") {
						return "550 not you, " + secretOfChat
					}
					return usual(command)
				})
				defer func() {
					if len(taken()) != 1 {
						t.Errorf("%d mails were taken, want 1", len(taken()))
					}
				}()
			}
			var logged strings.Builder
			r := chatReceiver(t, strings.ReplaceAll(template, "HOST", address), func(text string) { logged.WriteString(text + "\n") })
			o := r.Send(t.Context(), one())
			if !o.Delivered || o.Err != nil {
				t.Fatalf("the outcome is %+v; the server received %s", o, bodies.String())
			}
			mutex.Lock()
			text := bodies.String() + logged.String()
			code = http.StatusForbidden
			mutex.Unlock()
			for _, want := range []string{"port 9229/tcp of shop/web is open and not expected", "pid 1827 node"} {
				if plain := strings.NewReplacer(`\/`, "/", "\\u002F", "/").Replace(text); name != "smtp" && !strings.Contains(plain, want) {
					t.Errorf("%q is not in %s", want, plain)
				}
			}
			if name == "logger" {
				return
			}
			o = r.Send(t.Context(), one())
			if o.Delivered || o.Err == nil || o.Gone {
				t.Errorf("a refusal: %+v", o)
			}
			noSecret(t, o, secretOfChat, secretOfChat[:12])
		})
	}
}

// answerChat answers as a service does: the libraries read some of the answers.
func answerChat(w http.ResponseWriter, r *http.Request, name string, code int, body []byte) {
	if code != http.StatusOK {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"error":"no access to `+r.URL.String()+` with `+r.Header.Get("Authorization")+`","ok":false}`)
		return
	}
	switch name {
	case "discord", "notifiarr":
		w.WriteHeader(http.StatusNoContent)
	case "slack":
		_, _ = io.WriteString(w, "ok")
	case "teams":
		_, _ = io.WriteString(w, "1")
	case "lark":
		_, _ = io.WriteString(w, `{"code":0}`)
	case "pushbullet": // it compares what it sent
		_, _ = w.Write(append(bytes.TrimSuffix(bytes.TrimSpace(body), []byte("}")), `,"active":true,"iden":"x"}`...))
	case "opsgenie", "pagerduty":
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"status":"success"}`)
	case "signal":
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"timestamp":1}`)
	case "matrix":
		switch {
		case strings.HasSuffix(r.URL.Path, "/login") && r.Method == http.MethodGet:
			_, _ = io.WriteString(w, `{"flows":[{"type":"m.login.password"}]}`)
		case strings.HasSuffix(r.URL.Path, "/login"):
			_, _ = io.WriteString(w, `{"access_token":"a","home_server":"h","user_id":"u","device_id":"d"}`)
		default:
			_, _ = io.WriteString(w, `{"room_id":"!room:example.org","event_id":"e","joined_rooms":["!room:example.org"]}`)
		}
	default:
		_, _ = io.WriteString(w, `{"code":200,"message":"success","status":1,"ok":true,"result":{},"errcode":0,"id":1,"active":true,"iden":"x","type":"note"}`)
	}
}

// A service that does not answer costs one receiver a few goroutines, and the caller no more
// than its context; a redirect is not followed.
func TestSilentChatService(t *testing.T) {
	released := make(chan struct{})
	address := chatServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	})
	r := chatReceiver(t, "generic+http://"+address+"/"+secretOfChat, nil)
	for i := range maxLeft + 1 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		o := r.Send(ctx, one())
		cancel()
		want := "no answer in time"
		if i == maxLeft {
			want = "4 earlier tries have not ended"
		}
		if o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), want) {
			t.Errorf("try %d: %+v, want %q", i, o, want)
		}
		noSecret(t, o, secretOfChat)
	}
	close(released)
	eventually(t, "the service answers again", func() bool { return r.Send(t.Context(), one()).Delivered })

	followed := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer other.Close()
	address = chatServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	o := chatReceiver(t, "generic+http://"+address+"/"+secretOfChat, nil).Send(t.Context(), one())
	if o.Delivered || followed || o.Err == nil || !strings.Contains(o.Err.Error(), "redirects are not followed") {
		t.Errorf("a redirect: %+v, followed %t", o, followed)
	}
	noSecret(t, o, secretOfChat)
}

// Mentions in names reach no service, and a long message is cut.
func TestChatText(t *testing.T) {
	for _, text := range []string{"generic+http://h/x", "rocketchat://h/a/b", "pushover://shoutrrr:apptoken@userkey"} {
		s, err := parseService(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.begin(quiet); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*Notification{hostile(), many(30)} {
			message, params := chatMessage(s, n)
			title := params["title"]
			if strings.ContainsAny(message+title, "<>\x00\x1b\u202e\r") || strings.Contains(message+title, "@everyone") {
				t.Errorf("%s: %q, title %q", text, message, title)
			}
			if most := chatTexts[s.scheme]; len(message) > max(most, chatText) || most != 0 && len(message) > most {
				t.Errorf("%s: %d bytes", text, len(message))
			}
			if (title == "") != (s.scheme == "rocketchat") || !strings.Contains(title+message, unmentioned(compose(n).title)) {
				t.Errorf("%s: the title is %q", text, title)
			}
		}
	}
}
