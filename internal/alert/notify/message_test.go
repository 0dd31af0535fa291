package notify

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/model"

	"golang.org/x/net/html"
)

// TestMessageHasWhatIsNeeded: what, where, reachable from where, by which process, since when,
// whether it was there before, the last change of the container, and a link.
func TestMessageHasWhatIsNeeded(t *testing.T) {
	n := Examples("node1", made, pageURL)[1].Notification
	m := Render(n)
	for _, want := range []string{
		"[example] [critical] node1: port 5432/tcp of shop/db can be reached from further than expected, published at 0.0.0.0:5432",
		"container shop-db-1 (service db of project shop), image postgres:18, host node1", "5432/tcp on 0.0.0.0", "from other machines",
		"pid 2304 postgres", "/usr/lib/postgresql/18/bin/postgres", "2026-11-30 03:11:59 UTC (10s before this message)",
		"last open at 2026-11-30 01:12:09 UTC (2h0m before this message)", "started at 2026-11-30 03:11:57 UTC", "before: postgres:17",
		pageURL + "/?container=shop-db-1&port=5432/tcp", "port: 5432/tcp", "This is an example",
	} {
		for name, text := range map[string]string{"text": m.Text, "HTML": html.UnescapeString(m.HTML), "Markdown": strings.ReplaceAll(m.Markdown, `\`, "")} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in the %s:\n%s", want, name, text)
			}
		}
	}
}

// A message of many alerts names the most urgent ones and counts the others.
func TestManyAlerts(t *testing.T) {
	n := many(MaxItems + 30)
	n.Alerts[MaxItems+20].Severity, n.Alerts[MaxItems+20].Rule = Critical, "the-urgent-one"
	urgent, described := Urgent(n.Alerts, MaxItems), 0
	for _, one := range urgent {
		if one {
			described++
		}
	}
	if !urgent[MaxItems+20] || described != MaxItems {
		t.Errorf("%d alerts are urgent, the one at %d is: %t; want %d with it", described, MaxItems+20, urgent[MaxItems+20], MaxItems)
	}
	n.Alerts[0].Status = Resolved
	n.Severity = Critical
	m := Render(n)
	if !strings.Contains(m.Text, "the-urgent-one, critical") || !strings.Contains(m.Text, "And 30 more alerts") {
		t.Errorf("the text is\n%s", m.Text)
	}
	if !strings.Contains(m.Title, "digest of 49 alerts and 1 resolved in shop") {
		t.Errorf("the title is %q", m.Title)
	}
	if len([]rune(m.Title)) > maxTitle {
		t.Errorf("the title has %d characters", len([]rune(m.Title)))
	}
}

// Names from outside bring no markup, mention or line of their own into a message.
func TestHostileNames(t *testing.T) {
	m := Render(hostile())
	for name, text := range map[string]string{"title": m.Title, "text": m.Text, "HTML": m.HTML, "Markdown": m.Markdown} {
		if strings.ContainsAny(text, "\r\x00\x1b\u202e") {
			t.Errorf("the %s has control characters: %q", name, text)
		}
	}
	if strings.Contains(m.Title, "\n") {
		t.Errorf("the title has several lines: %q", m.Title)
	}
	for line := range strings.Lines(m.Markdown) {
		for _, part := range []string{"@everyone", "<!channel>", "<@U1>", "**b**", "[l]("} {
			syntax := strings.HasPrefix(part, "*") || strings.HasPrefix(part, "[")
			if strings.Contains(line, part) && (!syntax || strings.HasPrefix(line, "**") && !strings.HasPrefix(line, "**Page** <")) {
				t.Errorf("the Markdown has %q: %s", part, line)
			}
		}
	}
	for _, line := range strings.Split(m.Text, "\n") {
		if strings.HasPrefix(line, "Bcc:") {
			t.Errorf("a name makes a line: %q", line)
		}
	}
	checkElements(t, m.HTML)
}

// allowedElements are those of the HTML form.
var allowedElements = regexp.MustCompile(`^(html|head|meta|title|body|h2|h3|p|table|tbody|tr|th|td|pre|a)$`)

func checkElements(t testing.TB, text string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for node := range root.Descendants() {
		if node.Type == html.ElementNode && !allowedElements.MatchString(node.Data) {
			t.Errorf("the HTML has an element <%s>", node.Data)
		}
		for _, attribute := range node.Attr {
			if strings.HasPrefix(attribute.Key, "on") || attribute.Key == "href" && !strings.HasPrefix(attribute.Val, "http") {
				t.Errorf("the HTML has %s=%q", attribute.Key, attribute.Val)
			}
		}
	}
}

// FuzzNames puts any text wherever one from outside may be.
func FuzzNames(f *testing.F) {
	f.Add(hostileName, "javascript:alert(1)")
	f.Add("nginx", "https://p.example.org/x")
	f.Fuzz(func(t *testing.T, name, url string) {
		n := hostile()
		a := &n.Alerts[0]
		a.Rule, a.URL, a.Expectation, n.Host = name, url, name, name
		e := *a.Event
		e.Processes = []model.Process{{PID: 1, Name: name, Executable: name}}
		e.Container = &model.ContainerRef{Name: name, Image: name, Project: name, Service: name}
		a.Event = &e
		m := Render(n)
		for _, text := range []string{m.Title, m.Text, m.Markdown} {
			for _, r := range text {
				if r != '\n' && (r < ' ' || r == 0x7f || r == '\u202e' || r == '\u2028') {
					t.Fatalf("the character %q is in %q", r, text)
				}
			}
		}
		if strings.Contains(m.Title, "\n") || strings.Contains(m.Markdown, "@everyone") {
			t.Fatalf("title %q, Markdown %q", m.Title, m.Markdown)
		}
		checkElements(t, m.HTML)
		if body, err := encodeEvent(n); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	})
}

func TestCut(t *testing.T) {
	text := strings.Repeat("a line of text, ä\n", 100)
	got := cut(text, 500)
	if len(got) > 500 || !strings.HasSuffix(got, "have all of it.\n") || !strings.HasPrefix(got, "a line of text, ä\n") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if cut("short", 500) != "short" {
		t.Error("a short text was changed")
	}
}

// The key of a condition has no time, pid or id, and comes back as labels.
func TestIdentity(t *testing.T) {
	key := Identity{Rule: "new", Target: "shop/web", Protocol: model.TCP, Port: 80, Exposure: model.Published}.Key()
	if want := "exposure=published&port=80&protocol=tcp&rule=new&target=shop%2Fweb"; key != want {
		t.Errorf("the key is %q, want %q", key, want)
	}
	if labels := identityLabels(key); labels["target"] != "shop/web" || labels["port"] != "80" || len(labels) != 5 {
		t.Errorf("the labels are %v", labels)
	}
	for _, other := range []string{"another form", "%zz", "", "a=b"} {
		if labels := identityLabels(other); len(labels) != 1 || labels["key"] != other {
			t.Errorf("%q: the labels are %v", other, labels)
		}
	}
	if key := (Identity{Rule: "blind"}).Key(); key != "rule=blind" {
		t.Errorf("the key is %q", key)
	}
}

func TestSeverity(t *testing.T) {
	if Critical.Compare(Warning) <= 0 || Info.Compare(Warning) >= 0 || Info.Compare(Info) != 0 || Severity("").Compare(Info) >= 0 {
		t.Error("the order is wrong")
	}
	if _, err := ParseSeverity("urgent"); err == nil || !strings.Contains(err.Error(), "info, warning, critical") {
		t.Errorf("error %v, want one with what is allowed", err)
	}
	if s, err := ParseSeverity("warning"); s != Warning || err != nil {
		t.Errorf("%q, error %v", s, err)
	}
}

// Each form is the same at each try.
func TestMessagesAreStable(t *testing.T) {
	for i, example := range Examples("node1", made, pageURL) {
		other := Examples("node1", made, pageURL)[i]
		if Render(example.Notification) != Render(other.Notification) {
			t.Errorf("%s differs", example.Name)
		}
	}
	if moment(made.Add(-90*time.Minute), made) != "2026-11-30 01:42:09 UTC (1h30m before this message)" || moment(time.Time{}, made) != "" {
		t.Error(moment(made.Add(-90*time.Minute), made))
	}
}

// Another container, or none, publishes a port of the host.
func TestMessageOfAForward(t *testing.T) {
	e := &model.Event{Type: model.Changed, Time: made, Change: model.ChangeForward, Drift: model.DriftWider}
	e.Host, e.Protocol, e.Port, e.PreviousForward = "node1", model.TCP, 8080, &model.Forward{Container: model.ContainerRef{Name: "web"}, Port: 80}
	want := "is now published for no container, and was published for web:80 too"
	if text := ending(e); !strings.Contains(text, want) {
		t.Errorf("%q: want %q in it", text, want)
	}
	e.Drift = ""
	if text := beginning(e); !strings.Contains(text, want) {
		t.Errorf("%q: want %q in it", text, want)
	}
}
