package integration

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"

	"portwatcher/integration/internal/harness"
)

// The live view shows what opens and closes, from an instance and by itself, and
// quits with q.
func TestTop(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	web := start(t, "web", 1, []string{"--publish", "80"}, "--tcp", "0.0.0.0:80")
	for way, arguments := range waits(t) {
		t.Run(way, func(t *testing.T) {
			source := "live from " + arguments[len(arguments)-1]
			if way == "by itself" {
				source = "watching by itself: --local"
			}
			screen, press, ended := startTop(t, append([]string{"top"}, arguments...), "MONITOR_CONTAINERS="+web.Name)
			shows := func(texts ...string) {
				t.Helper()
				harness.Eventually(t, "the screen shows it", func() string {
					for _, text := range texts {
						if !strings.Contains(screen.String(), text) {
							return "want " + text + ":\n" + screen.String()
						}
					}
					return ""
				})
			}
			shows(source, web.Name, "80/tcp", "published", "workload", "open port")
			service := web.Exec(t, "listen", "--tcp", "0.0.0.0:4321")
			shows("4321/tcp", "opened    "+web.Name+" 4321/tcp on 0.0.0.0")
			service.Stop(t)
			shows("closed    " + web.Name + " 4321/tcp on 0.0.0.0")
			press("/4321\r")
			shows("No open port has")
			press("\x1b") // Esc alone: what follows at once would be another key
			shows("1/1")
			press("q")
			if err := ended(); err != nil {
				t.Errorf("q: %v", err)
			}
		})
	}
}

// startTop runs portwatcher on a pseudo-terminal, and returns its screen, what
// presses keys and what waits for its end.
func startTop(t *testing.T, arguments []string, environment ...string) (screen vt10x.Terminal, press func(string), ended func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	command := exec.CommandContext(ctx, harness.Portwatcher(t), arguments...)
	// The emulator implements every sequence of this kind of terminal.
	command.Env = append(append(os.Environ(), "TERM=linux"), environment...)
	terminal, err := pty.StartWithSize(command, &pty.Winsize{Rows: 40, Cols: 160})
	if err != nil {
		harness.Unavailable(t, "needs a pseudo-terminal: "+err.Error())
	}
	screen = vt10x.New(vt10x.WithSize(160, 40))
	done := make(chan error, 1)
	go func() {
		for buffer := make([]byte, 64<<10); ; {
			n, err := terminal.Read(buffer)
			if err != nil {
				break // it has ended
			}
			if _, err := screen.Write(buffer[:n]); err != nil {
				t.Error(err)
			}
		}
		done <- command.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		terminal.Close()
	})
	press = func(keys string) {
		t.Helper()
		if _, err := terminal.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	ended = func() error { return wait(t, done) }
	return screen, press, ended
}

// wait waits for what comes on a channel.
func wait(t *testing.T, done <-chan error) (err error) {
	t.Helper()
	harness.Eventually(t, "the command ends", func() string {
		select {
		case err = <-done:
			return ""
		default:
			return "it is running"
		}
	})
	return err
}
