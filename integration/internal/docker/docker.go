// Package docker drives Docker engines from outside, for the integration tests, the
// demo's commands and the benchmarks. It needs no package of the product.
package docker

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Engine is a Docker engine. It is safe for concurrent use.
type Engine struct {
	// Host is its address as in DOCKER_HOST; empty is the one of the environment.
	Host string

	ending sync.Mutex // see endOne
}

// Command returns the docker command with these arguments. It has a process group of its
// own, so that an interrupt from the terminal leaves nothing half done.
func (e *Engine) Command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "docker", arguments...)
	if e.Host != "" {
		command.Env = append(os.Environ(), "DOCKER_HOST="+e.Host)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return command
}

// Run runs the docker command and returns its standard output without surrounding
// blanks. The error has what it wrote to standard error. A command that ends a container
// waits for its turn, and for the end; see endOne.
func (e *Engine) Run(ctx context.Context, arguments ...string) (string, error) {
	switch arguments[0] {
	case "kill", "stop", "restart", "rm":
		defer e.endOne()()
	}
	output, err := e.run(ctx, nil, arguments...)
	if err == nil && arguments[0] == "kill" {
		_, err = e.run(ctx, nil, "wait", arguments[len(arguments)-1])
	}
	return output, err
}

func (e *Engine) run(ctx context.Context, input io.Reader, arguments ...string) (string, error) {
	command := e.Command(ctx, arguments...)
	command.Stdin = input
	output, err := command.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return strings.TrimSpace(string(output)), fmt.Errorf("docker %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(output)), nil
}

// Import makes an image of one layer with static binaries in its root. Changes are
// instructions of a Dockerfile, such as "LABEL a=b".
func (e *Engine) Import(ctx context.Context, image string, binaries []string, changes ...string) error {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, path := range binaries {
		content, err := os.ReadFile(path)
		if err == nil {
			err = writer.WriteHeader(&tar.Header{Name: filepath.Base(path), Mode: 0o755, Size: int64(len(content))})
		}
		if err == nil {
			_, err = writer.Write(content)
		}
		if err != nil {
			return fmt.Errorf("pack %s into an image: %w", path, err)
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return e.ImportArchive(ctx, image, &archive, changes...)
}

// ImportArchive is [Engine.Import] of a tar stream.
func (e *Engine) ImportArchive(ctx context.Context, image string, archive io.Reader, changes ...string) error {
	arguments := []string{"import"}
	for _, change := range changes {
		arguments = append(arguments, "--change", change)
	}
	_, err := e.run(ctx, archive, append(arguments, "-", image)...)
	return err
}

// endOne waits until nobody else in this process ends a container of this engine. The
// caller ends its one container, waits until it has ended, and calls done.
//
// Docker Engine 20.10 deadlocks when containers leave their networks at the same moment,
// and answers nothing any more: libnetwork's endpoint.sbLeave holds the network's lock
// and waits in getSvcRecords for the controller's, while processEndpointDelete in
// watchLoop holds the controller's and waits for the network's. `docker rm a b c` removes
// up to 50 at the same time. Starting many at the same time is no problem.
func (e *Engine) endOne() (done func()) {
	e.ending.Lock()
	return e.ending.Unlock
}

// removeTime bounds the removal of one container.
const removeTime = time.Minute

// Remove kills and removes containers with their volumes, each after the other, by the
// engine's API: a process of the docker command for each would take longer. One that is
// gone, or whose engine is gone, is no error; after another error the others are removed
// all the same.
func (e *Engine) Remove(names ...string) error {
	address, err := url.Parse(cmp.Or(e.Host, os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"))
	if err != nil {
		return fmt.Errorf("remove containers: %w", err)
	}
	client := &http.Client{Timeout: removeTime, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, address.Scheme, address.Host+address.Path)
		},
	}}
	defer client.CloseIdleConnections()
	var failures error
	for _, name := range names {
		err := e.remove(client, name)
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			break
		}
		if err != nil {
			failures = errors.Join(failures, fmt.Errorf("remove container %s: %w", name, err))
		}
	}
	return failures
}

func (e *Engine) remove(client *http.Client, name string) error {
	defer e.endOne()()
	status, answer, err := request(client, http.MethodDelete, name+"?force=1&v=1")
	if err == nil && status == http.StatusConflict { // it has ended by itself, and --rm removes it
		status, answer, err = request(client, http.MethodPost, name+"/wait?condition=removed")
	}
	if err == nil && status >= http.StatusBadRequest && status != http.StatusNotFound {
		err = fmt.Errorf("status %d: %s", status, strings.TrimSpace(answer))
	}
	return err
}

// request makes a request about a container, of the API version that the engine takes by
// default.
func request(client *http.Client, method, what string) (status int, answer string, err error) {
	request, err := http.NewRequest(method, "http://docker/containers/"+what, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// RemoveLabelled removes everything that has a label: containers, networks, volumes and
// images. It does its work whatever has happened before.
func (e *Engine) RemoveLabelled(ctx context.Context, label string) (err error) {
	byCommand := func(command ...string) func(...string) error {
		return func(ids ...string) error {
			_, err := e.Run(ctx, append(command, ids...)...)
			return err
		}
	}
	for _, kind := range []struct {
		list   []string
		remove func(ids ...string) error
	}{
		{[]string{"ps", "--all", "--no-trunc"}, e.Remove},
		{[]string{"network", "ls"}, byCommand("network", "rm")},
		{[]string{"volume", "ls"}, byCommand("volume", "rm")},
		{[]string{"images"}, byCommand("rmi", "--force")},
	} {
		found, listErr := e.Run(ctx, append(kind.list, "--quiet", "--filter", "label="+label)...)
		err = errors.Join(err, listErr)
		if ids := strings.Fields(found); len(ids) > 0 {
			err = errors.Join(err, kind.remove(ids...))
		}
	}
	return err
}

// Build compiles a static binary of a package of a module to this path. The module is
// that of the working directory, or one of those that it requires.
func Build(module, pkg, path string) error {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find the module %s from the working directory: %w", module, err)
	}
	command := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	command.Dir, command.Env = strings.TrimSpace(string(folder)), append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, output)
	}
	return nil
}
