package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"portwatcher/integration/internal/harness"
)

// An engine elsewhere names the processes of its own machine. What has the same
// pid here is another process, and its ports are not the container's.
func TestEngineElsewhere(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	// This process listens here, and is in no container of that engine.
	remote := engineElsewhere(t, "remote-db", os.Getpid())
	far := []string{"DOCKER_HOST=" + remote, "PORTWATCHER_STATE=" + t.TempDir()}
	texts := []string{"engine at " + remote, fmt.Sprintf("process %d as container remote-db's, but it is not", os.Getpid()), "is that engine on this machine?"}
	for _, command := range [][]string{
		{"ports"}, {"ports", "--source", "proc", "--format", "json"}, {"ports", "--monitor-containers", "remote-db"},
	} {
		result := harness.Run(t, far, command...)
		if result.Status != 1 || result.Stdout != "" {
			t.Errorf("%q: status %d and %q, want 1 and nothing", command, result.Status, result.Stdout)
		}
		if wrong := harness.OneLine(result.Stderr, texts...); wrong != "" {
			t.Errorf("%q: %s", command, wrong)
		}
	}
	result := harness.Run(t, []string{"DOCKER_HOST=" + engineElsewhere(t, "remote-db", 1<<29)}, "ports") // no such process
	if result.Status != 0 || !strings.Contains(result.Stderr, "it has just ended, or that engine is not on this machine") {
		t.Errorf("a process that is not here: status %d, %q, log %s", result.Status, result.Stdout, result.Stderr)
	}
	result = harness.Run(t, far, "run", "--listen", "")
	if result.Status != 1 || result.Stdout != "" || !strings.Contains(result.Stderr, texts[1]) {
		t.Errorf("run: status %d, %q, log %s", result.Status, result.Stdout, result.Stderr)
	}
}

// engineElsewhere answers as an engine with one running container, and returns its
// address.
func engineElsewhere(t *testing.T, name string, pid int) string {
	t.Helper()
	id := strings.Repeat("7f", 32)
	answers := map[string]any{
		"/info":            map[string]any{"Name": "elsewhere", "ServerVersion": "28.0.0"},
		"/containers/json": []any{map[string]any{"Id": id, "Names": []string{"/" + name}, "State": "running"}},
		"/containers/" + id + "/json": map[string]any{
			"Id": id, "Name": "/" + name, "Config": map[string]any{"Image": "postgres"},
			"State":           map[string]any{"Running": true, "Status": "running", "Pid": pid, "StartedAt": "2026-01-01T00:00:00Z"},
			"HostConfig":      map[string]any{"NetworkMode": "bridge"},
			"NetworkSettings": map[string]any{},
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		path := strings.TrimPrefix(r.URL.Path, "/v1.44")
		answer, known := answers[path]
		switch {
		case path == "/_ping":
			fmt.Fprint(w, "OK")
		case path == "/events":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case !known:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(answer); err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(server.Close)
	return "tcp://" + strings.TrimPrefix(server.URL, "http://")
}
