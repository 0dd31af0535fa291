package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portwatcher/integration/internal/harness"
)

// monitoring is the folder of the configuration under test.
const monitoring = "../deploy/prometheus"

// haste is how much faster than the clock the rules run in the tests: an hour
// of theirs takes 24 s.
const haste = 150

// prometheus is a Prometheus of the test's own.
type prometheus struct{ address string }

// startPrometheus runs the prometheus command with the configuration of deploy/, changed to
// this target and token file, and accelerated. It ends with the test.
func startPrometheus(t *testing.T, target, token string, flags ...string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		harness.Unavailable(t, "needs the command prometheus (Debian's package prometheus)")
	}
	p := &prometheus{address: loopback(9090)}
	folder := t.TempDir()
	arguments := append([]string{
		"--config.file=" + configure(t, folder, target, token), "--storage.tsdb.path=" + filepath.Join(folder, "data"),
		"--web.listen-address=" + p.address,
	}, flags...)
	command := exec.Command(binary, arguments...)
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatalf("start prometheus: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait() // how it ended is checked below
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // where it has ended already, its status is checked below
		select {
		case <-ended:
		case <-time.After(harness.Patience):
			t.Errorf("prometheus has not ended %v after SIGTERM", harness.Patience)
			_ = command.Process.Kill()
			<-ended
		}
		if status := command.ProcessState; !status.Success() {
			t.Errorf("prometheus: %v", status)
		}
		if t.Failed() {
			text := log.String()
			t.Logf("end of the log of prometheus:\n%s", text[max(0, len(text)-3000):])
		}
	})
	harness.Eventually(t, "prometheus is ready", func() string {
		select {
		case <-ended:
			t.Fatalf("prometheus has ended: %s", log.String())
		default:
		}
		response, err := http.Get("http://" + p.address + "/-/ready")
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return response.Status
		}
		return ""
	})
	return p
}

// configure writes a copy of the configuration, checks it with promtool and
// returns its path.
func configure(t *testing.T, folder, target, token string) string {
	t.Helper()
	path := filepath.Join(folder, "prometheus.yml")
	text := read(t, filepath.Join(monitoring, "prometheus.yml"))
	for old, replacement := range map[string]string{
		"scrape_interval: 15s": "scrape_interval: 500ms", "evaluation_interval: 15s": "evaluation_interval: 500ms",
		"portwatcher:9888": target, "/run/portwatcher/token": token,
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("prometheus.yml: want %q once", old)
		}
		text = strings.Replace(text, old, replacement, 1)
	}
	write(t, path, text)
	rules, err := filepath.Glob(filepath.Join(monitoring, "rules", "*.yml"))
	if err != nil || len(rules) == 0 {
		t.Fatalf("no rules in %s: %v", monitoring, err)
	}
	if err := os.Mkdir(filepath.Join(folder, "rules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range rules {
		write(t, filepath.Join(folder, "rules", filepath.Base(file)), hasten(read(t, file)))
	}
	if output, err := exec.Command("promtool", "check", "config", path).CombinedOutput(); err != nil {
		t.Fatalf("promtool check config: %v\n%s", err, output)
	}
	return path
}

var minutesOrHours = regexp.MustCompile(`\b([0-9]+)([mh])\b`)

// hasten makes each duration of some rules shorter by the factor haste.
func hasten(rules string) string {
	return minutesOrHours.ReplaceAllStringFunc(rules, func(text string) string {
		duration, err := time.ParseDuration(text)
		if err != nil {
			return text // not a duration, and nothing that Prometheus takes for one
		}
		return strconv.FormatInt((duration/haste).Milliseconds(), 10) + "ms"
	})
}

// ask reads the data of an answer of the HTTP API; the error is Prometheus' own.
func (p *prometheus) ask(path string, parameters url.Values, data any) error {
	response, err := http.Get("http://" + p.address + "/api/v1/" + path + "?" + parameters.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// mustAsk is ask for what cannot fail.
func (p *prometheus) mustAsk(t *testing.T, path string, data any) {
	t.Helper()
	if err := p.ask(path, nil, data); err != nil {
		t.Fatalf("prometheus: %v", err)
	}
}

// query returns how many series an expression has now.
func (p *prometheus) query(t *testing.T, expression string) int {
	t.Helper()
	var data struct{ Result []json.RawMessage }
	if err := p.ask("query", url.Values{"query": {expression}}, &data); err != nil {
		t.Fatalf("%s\n%v", expression, err)
	}
	return len(data.Result)
}

// waitFor waits until an expression has a series.
func (p *prometheus) waitFor(t *testing.T, expression string) {
	t.Helper()
	harness.Eventually(t, expression, func() string {
		if p.query(t, expression) == 0 {
			return "no data"
		}
		return ""
	})
}

// alert is an alert that is pending or firing.
type alert struct {
	Labels, Annotations map[string]string
	State               string
}

// waitAlert waits until an alert with these labels fires.
func (p *prometheus) waitAlert(t *testing.T, labels map[string]string) alert {
	t.Helper()
	var found alert
	harness.Eventually(t, fmt.Sprintf("an alert %v fires", labels), func() string {
		alerts := p.alerts(t)
	next:
		for _, a := range alerts {
			for name, value := range labels {
				if a.Labels[name] != value {
					continue next
				}
			}
			if a.State == "firing" {
				found = a
				return ""
			}
		}
		return fmt.Sprintf("there are %v", alerts)
	})
	return found
}

func (p *prometheus) alerts(t *testing.T) []alert {
	t.Helper()
	var data struct{ Alerts []alert }
	p.mustAsk(t, "alerts", &data)
	return data.Alerts
}
