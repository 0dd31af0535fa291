package notify

import (
	"crypto/tls"
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/cert"

	"golang.org/x/crypto/bcrypt"
)

// held is an alert that an Alertmanager holds.
type held struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
	Status              struct{ State string }
}

// manager is a real Alertmanager.
type manager struct {
	t        *testing.T
	path     string
	folder   string
	address  string
	options  []string
	stop     func(syscall.Signal)
	client   *http.Client
	scheme   string
	password string
}

func newManager(t *testing.T) *manager {
	m := &manager{
		t: t, path: command(t, "prometheus-alertmanager", "prometheus-alertmanager"), folder: t.TempDir(), address: freePort(t),
		client: &http.Client{Timeout: deadline}, scheme: "http://",
	}
	writeFile(t, filepath.Join(m.folder, "alertmanager.yml"), "route: {receiver: none}\nreceivers: [{name: none}]\n")
	return m
}

func (m *manager) url() string { return m.scheme + m.address }

func (m *manager) start() {
	m.t.Helper()
	_, m.stop = daemon(m.t, m.path, append([]string{
		"--config.file=" + filepath.Join(m.folder, "alertmanager.yml"), "--storage.path=" + filepath.Join(m.folder, "data"),
		"--web.listen-address=" + m.address, "--cluster.listen-address=",
	}, m.options...)...)
	eventually(m.t, "Alertmanager is ready", func() bool {
		_, status := m.get("/-/ready")
		return status == http.StatusOK
	})
}

func (m *manager) get(path string) ([]held, int) {
	m.t.Helper()
	request, err := http.NewRequest(http.MethodGet, m.url()+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.password != "" {
		request.SetBasicAuth("portwatcher", m.password)
	}
	answer, err := m.client.Do(request)
	if err != nil {
		return nil, 0
	}
	defer answer.Body.Close()
	var alerts []held
	if strings.HasPrefix(path, "/api") {
		if err := json.NewDecoder(answer.Body).Decode(&alerts); err != nil {
			m.t.Fatal(err)
		}
	}
	return alerts, answer.StatusCode
}

// holds returns the alerts that last.
func (m *manager) holds() []held {
	m.t.Helper()
	alerts, status := m.get("/api/v2/alerts")
	if status != http.StatusOK {
		m.t.Fatalf("Alertmanager answered %d", status)
	}
	return alerts
}

// A condition is one alert to Alertmanager while it lasts, also across a restart of it, and its
// end ends it at once.
func TestAlertmanager(t *testing.T) {
	m := newManager(t)
	m.start()
	r := receiver(t, ReceiverConfig{Alertmanager: &AlertmanagerConfig{URL: m.url() + "/", Labels: map[string]string{"team": "shop"}}})
	began := time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)
	firing := Examples("node1", time.Now(), pageURL)[1].Notification
	firing.Test, firing.Alerts[0].Since = false, began

	send := func(n *Notification) {
		t.Helper()
		if o := r.Send(t.Context(), n); !o.Delivered || o.Status != http.StatusOK {
			t.Fatalf("the outcome is %+v", o)
		}
	}
	send(firing)
	first := m.holds()
	if len(first) != 1 {
		t.Fatalf("it holds %+v, want one alert", first)
	}
	want := map[string]string{
		"alertname": "widened", "severity": "critical", "host": "node1", "target": "shop/db", "port": "5432", "protocol": "tcp",
		"exposure": "published", "team": "shop",
	}
	if !maps.Equal(first[0].Labels, want) {
		t.Errorf("the labels are %v, want %v", first[0].Labels, want)
	}
	if in := time.Until(first[0].EndsAt); in < StandardHold/2 || in > StandardHold+time.Minute || !first[0].StartsAt.Equal(began) {
		t.Errorf("it lasts from %s for %s more, want from %s for %s", first[0].StartsAt, in, began, StandardHold)
	}
	if a := first[0].Annotations; !strings.Contains(a["summary"], "5432/tcp of shop/db") || !strings.Contains(a["description"], "postgres:17") || first[0].GeneratorURL == "" {
		t.Errorf("the annotations are %v, generator %q", a, first[0].GeneratorURL)
	}

	// Repeated after a restart of the container: another pid, id and time.
	again := *firing
	again.ID, again.Time, again.Alerts = "node1/4999", time.Now(), []Alert{firing.Alerts[0]}
	e := *again.Alerts[0].Event
	container := *e.Container
	container.ID, e.Container, e.ID = "another", &container, 4999
	e.Processes = []model.Process{{PID: 99999, Name: "postgres"}}
	again.Alerts[0].Event = &e
	send(&again)
	if repeated := m.holds(); len(repeated) != 1 || !repeated[0].EndsAt.After(first[0].EndsAt) || !repeated[0].StartsAt.Equal(began) {
		t.Errorf("after the repetition it holds %+v, want the same alert with a later end", repeated)
	}

	// Alertmanager keeps alerts in memory only.
	m.stop(syscall.SIGKILL)
	if o := r.Send(t.Context(), &again); o.Delivered || o.Err == nil || o.Gone {
		t.Errorf("while it is down: %+v", o)
	}
	m.start()
	if lost := m.holds(); len(lost) != 0 {
		t.Logf("this Alertmanager kept %d alerts across its restart", len(lost))
	}
	send(&again)
	if back := m.holds(); len(back) != 1 || !back[0].StartsAt.Equal(began) || !maps.Equal(back[0].Labels, want) {
		t.Errorf("after its restart it holds %+v, want the alert with its beginning", back)
	}

	// The event of the end has another exposure; the identity is that of the beginning.
	end := again
	end.ID, end.Alerts = "node1/5000", []Alert{again.Alerts[0]}
	narrow := e
	narrow.Type, narrow.Drift, narrow.Change = model.Changed, "", model.ChangeExposure
	narrow.SetReach(model.Network, nil)
	end.Alerts[0].Status, end.Alerts[0].Until, end.Alerts[0].Event = Resolved, time.Now(), &narrow
	send(&end)
	if after := m.holds(); len(after) != 0 {
		t.Errorf("after the end it holds %+v", after)
	}
	send(firing)
	if after := m.holds(); len(after) != 1 {
		t.Errorf("when it begins again it holds %+v", after)
	}
}

// Every example is taken, and each alert of a notification is one of its own; hostile names are
// values of labels.
func TestAlertmanagerTakesAll(t *testing.T) {
	m := newManager(t)
	m.start()
	r := receiver(t, ReceiverConfig{Alertmanager: &AlertmanagerConfig{URL: m.url()}})
	keys := map[string]bool{}
	for _, example := range append(Examples("node1", time.Now(), pageURL), Example{"hostile", hostile()}) {
		n := example.Notification
		if o := r.Send(t.Context(), n); !o.Delivered {
			t.Errorf("%s: %+v", example.Name, o)
		}
		for _, a := range n.Alerts {
			if a.Status == Resolved {
				delete(keys, a.Key+a.Rule+string(a.Severity)+n.Host)
			} else {
				keys[a.Key+a.Rule+string(a.Severity)+n.Host] = true
			}
		}
	}
	if got := m.holds(); len(got) != len(keys) {
		t.Errorf("it holds %d alerts, want %d: %+v", len(got), len(keys), got)
	}
}

// Of several Alertmanagers each gets the alerts; one that is down costs the others nothing.
func TestSeveralAlertmanagers(t *testing.T) {
	a, b := newManager(t), newManager(t)
	a.start()
	b.start()
	r := receiver(t, ReceiverConfig{Alertmanager: &AlertmanagerConfig{URLs: []string{a.url(), b.url()}}})
	n := Examples("node1", time.Now(), "")[0].Notification
	if o := r.Send(t.Context(), n); !o.Delivered || o.Warning != "" || len(a.holds()) != 1 || len(b.holds()) != 1 {
		t.Errorf("the outcome is %+v; they hold %v and %v", o, a.holds(), b.holds())
	}
	a.stop(syscall.SIGTERM)
	if o := r.Send(t.Context(), n); !o.Delivered || !strings.Contains(o.Warning, "1 of 2 have not taken it: "+a.url()) {
		t.Errorf("with one that is down: %+v", o)
	}
	b.stop(syscall.SIGTERM)
	if o := r.Send(t.Context(), n); o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "2 of 2 have not taken it") {
		t.Errorf("with both down: %+v", o)
	}
}

// An Alertmanager with TLS of a private CA and a password, which is read from a file again.
func TestAlertmanagerWithTLSAndPassword(t *testing.T) {
	m := newManager(t)
	certificate, key := cert.SelfSigned(t, 1, "127.0.0.1")
	ca := writeFile(t, filepath.Join(m.folder, "cert.pem"), string(certificate))
	writeFile(t, filepath.Join(m.folder, "key.pem"), string(key))
	m.password, m.scheme = "correct horse battery", "https://"
	hash, err := bcrypt.GenerateFromPassword([]byte(m.password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	m.options = []string{"--web.config.file=" + writeFile(t, filepath.Join(m.folder, "web.yml"),
		"tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {portwatcher: '"+string(hash)+"'}\n")}
	m.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.Pool(t, certificate)}}
	m.start()
	password := secretFile(t, "the wrong password")
	c := &AlertmanagerConfig{URL: m.url(), CAFile: ca, Username: "portwatcher", PasswordFile: password}
	r := receiver(t, ReceiverConfig{Alertmanager: c})
	n := Examples("node1", time.Now(), "")[0].Notification
	o := r.Send(t.Context(), n)
	if o.Delivered || o.Status != http.StatusUnauthorized {
		t.Errorf("with a wrong password: %+v", o)
	}
	noSecret(t, o, "the wrong password")
	writeFile(t, password, m.password+"\n")
	if o := r.Send(t.Context(), n); !o.Delivered || len(m.holds()) != 1 {
		t.Errorf("with the password: %+v", o)
	}
	c.CAFile = ""
	if o := receiver(t, ReceiverConfig{Alertmanager: c}).Send(t.Context(), n); o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), "certificate") {
		t.Errorf("with the system's certificates: %+v", o)
	}
}

// A token is sent to each Alertmanager, and is read again.
func TestAlertmanagerToken(t *testing.T) {
	url, requests := recorder(t)
	file := secretFile(t, "the first token")
	r := receiver(t, ReceiverConfig{Alertmanager: &AlertmanagerConfig{URL: url, TokenFile: file}})
	if got := deliverTo(t, r, one(), requests); got.header.Get("Authorization") != "Bearer the first token" {
		t.Errorf("the header is %v", got.header)
	}
	writeFile(t, file, "the second token\n")
	if got := deliverTo(t, r, one(), requests); got.header.Get("Authorization") != "Bearer the second token" {
		t.Errorf("after the rotation the header is %v", got.header)
	}
	writeFile(t, file, "\n")
	if o := r.Send(t.Context(), one()); o.Delivered || o.Err == nil || !strings.Contains(o.Err.Error(), file) {
		t.Errorf("with an empty file: %+v, want an error that names it", o)
	}
}
