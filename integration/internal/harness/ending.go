package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// endOne waits until nobody else in this process ends a container of this engine.
// The caller ends its one container, waits until it has ended, and calls done.
//
// Docker Engine 20.10 deadlocks when containers leave their networks at the same
// moment, and answers nothing any more: libnetwork's endpoint.sbLeave holds the
// network's lock and waits in getSvcRecords for the controller's, while
// processEndpointDelete in watchLoop holds the controller's and waits for the
// network's. `docker rm a b c` removes up to 50 at the same time. Starting many at
// the same time is no problem.
func (e *Engine) endOne() (done func()) {
	e.ending.Lock()
	return e.ending.Unlock
}

// removeTime bounds the removal of one container.
const removeTime = time.Minute

// Remove kills and removes containers with their volumes, each after the other,
// by the engine's API: a process of the docker command for each would take longer.
// One that is gone, or whose engine is gone, is no error; after another error the
// others are removed all the same.
func (e *Engine) Remove(names ...string) error {
	engine, err := url.Parse(cmp.Or(e.Host, os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"))
	if err != nil {
		return fmt.Errorf("remove containers: %w", err)
	}
	docker := &http.Client{Timeout: removeTime, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, engine.Scheme, engine.Host+engine.Path)
		},
	}}
	defer docker.CloseIdleConnections()
	var failures error
	for _, name := range names {
		err := e.remove(docker, name)
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			break
		}
		if err != nil {
			failures = errors.Join(failures, fmt.Errorf("remove container %s: %w", name, err))
		}
	}
	return failures
}

func (e *Engine) remove(docker *http.Client, name string) error {
	defer e.endOne()()
	status, answer, err := ask(docker, http.MethodDelete, name+"?force=1&v=1")
	if err == nil && status == http.StatusConflict { // it has ended by itself, and --rm removes it
		status, answer, err = ask(docker, http.MethodPost, name+"/wait?condition=removed")
	}
	if err == nil && status >= http.StatusBadRequest && status != http.StatusNotFound {
		err = fmt.Errorf("status %d: %s", status, strings.TrimSpace(answer))
	}
	return err
}

// ask makes a request about a container, of the API version that the engine
// takes by default.
func ask(docker *http.Client, method, what string) (status int, answer string, err error) {
	request, err := http.NewRequest(method, "http://docker/containers/"+what, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := docker.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}
