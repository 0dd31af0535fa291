package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
	"portwatcher/internal/model"
)

// server is a real server and what it must have open before it counts as
// started: these endpoints, each held by so many processes of so many users.
type server struct {
	name             string
	options, command []string
	endpoints        []string
	processes, users int
}

var servers = []server{{
	name: "nginx", // a master as root, workers as www-data
	command: []string{"sh", "-c",
		"sed -i 's/worker_processes auto/worker_processes 3/' /etc/nginx/nginx.conf && exec nginx -g 'daemon off;'"},
	options:   []string{"--publish", "80"},
	endpoints: []string{"tcp 0.0.0.0 80", "tcp :: 80"},
	processes: 4, users: 2,
}, {
	name:      "redis", // as Debian configures it: loopback only
	options:   []string{"--user", "redis"},
	command:   []string{"redis-server", "/etc/redis/redis.conf", "--daemonize", "no", "--logfile", ""},
	endpoints: []string{"tcp 127.0.0.1 6379"},
	processes: 1, users: 1,
}, {
	name:      "redis-open", // without a configuration: every address
	options:   []string{"--user", "redis", "--publish", "127.0.0.1::6379"},
	command:   []string{"redis-server", "--dir", "/tmp"},
	endpoints: []string{"tcp 0.0.0.0 6379", "tcp :: 6379"},
	processes: 1, users: 1,
}, {
	name:    "postgres",
	options: []string{"--user", "postgres"},
	command: []string{"sh", "-c", "exec /usr/lib/postgresql/*/bin/postgres -D /var/lib/postgresql/*/main" +
		" -c config_file=$(echo /etc/postgresql/*/main/postgresql.conf) -c 'listen_addresses=*'"},
	endpoints: []string{"tcp 0.0.0.0 5432", "tcp :: 5432"},
	processes: 1, users: 1,
}, {
	name:      "dnsmasq",
	command:   []string{"dnsmasq", "--keep-in-foreground", "--no-resolv"},
	options:   []string{"--publish", "53/udp"},
	endpoints: []string{"tcp 0.0.0.0 53", "tcp :: 53", "udp 0.0.0.0 53", "udp :: 53"},
	processes: 1, users: 1,
}, {
	name:      "sshd",
	command:   []string{"sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e"},
	endpoints: []string{"tcp 0.0.0.0 22", "tcp :: 22"},
	processes: 1, users: 1,
}}

// started returns what a server does not have open yet, or "".
func (s server) started(listeners []harness.Listener) string {
	if len(listeners) != len(s.endpoints) {
		return fmt.Sprintf("open: %q", harness.Lines(listeners))
	}
	for _, listener := range listeners {
		endpoint := fmt.Sprintf("%s %s %d", listener.Protocol, listener.Address, listener.Port)
		users := make(map[uint32]bool)
		for _, process := range listener.Processes {
			users[*process.UID] = true
		}
		if !slices.Contains(s.endpoints, endpoint) || len(users) != s.users || len(listener.Processes) != s.processes {
			return "so far: " + listener.String()
		}
	}
	return ""
}

func TestServers(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	image := harness.ServersImage(t)
	pattern := harness.Pattern(t)
	early := harness.StartWatch(t, harness.WatchSpec{})

	containers := make(map[string]*harness.Container)
	for _, server := range servers {
		containers[server.name] = harness.Default.Start(t, harness.Spec{
			Name: harness.Name(t, server.name), Image: image, Options: server.options, Command: server.command,
		})
	}
	var all []harness.Listener
	for _, server := range servers {
		container := containers[server.name]
		harness.Eventually(t, server.name+" starts", func() string {
			return server.started(harness.Listening(t, container))
		})
		all = append(all, harness.Publish(t, container, harness.Listening(t, container))...)
	}

	t.Run("as a process", func(t *testing.T) {
		harness.StartWatch(t, harness.WatchSpec{Monitor: pattern}).WaitOpen(t, all)
	})
	t.Run("in a container", func(t *testing.T) {
		harness.StartWatch(t, harness.WatchSpec{Monitor: pattern, InContainer: true}).WaitOpen(t, all)
	})
	t.Run("ports", func(t *testing.T) {
		if difference := harness.Difference(openPorts(t, pattern), all); difference != "" {
			t.Error(difference)
		}
	})
	t.Run("from before their start", func(t *testing.T) {
		for _, listener := range all {
			early.WaitEvent(t, 0, harness.Opened(listener.Container, listener.Protocol, listener.Address, listener.Port))
		}
		early.Expect(t, len(all), harness.Match{Type: "opened"})
		early.Expect(t, len(all), harness.Match{})
	})
	t.Run("their end", func(t *testing.T) {
		nginx := containers["nginx"]
		if err := syscall.Kill(nginx.PID, syscall.SIGQUIT); err != nil { // its own way to stop
			t.Fatal(err)
		}
		for _, address := range []string{"0.0.0.0", "::"} {
			early.WaitEvent(t, 0, harness.Closed(nginx.Name, "tcp", address, 80))
		}
		early.Expect(t, 2, harness.Match{Type: "closed"})
	})
}

// openPorts is what `portwatcher ports --format json` lists for these containers.
func openPorts(t *testing.T, monitor string) []harness.Listener {
	t.Helper()
	result := harness.Run(t, []string{"MONITOR_CONTAINERS=" + monitor}, "ports", "--format", "json")
	var open []model.Open
	if err := json.Unmarshal([]byte(result.Stdout), &open); err != nil || result.Status != 0 {
		t.Fatalf("portwatcher ports --format json: exit status %d, %v: %s%s",
			result.Status, err, result.Stdout, result.Stderr)
	}
	listeners := make([]harness.Listener, 0, len(open))
	for _, port := range open {
		if port.Container == nil || port.OpenedAt.IsZero() || port.Time.IsZero() {
			t.Errorf("not an open port as the design has it: %+v", port)
			continue
		}
		listeners = append(listeners, harness.ListenerOf(&port.Listener))
	}
	return listeners
}
