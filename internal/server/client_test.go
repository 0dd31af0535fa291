package server

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"portwatcher/internal/client"
	"portwatcher/internal/model"
)

// TestTheClient uses everything of the client with a server that has token and
// TLS.
func TestTheClient(t *testing.T) {
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	issue(t, 1, certFile, keyFile)
	token := writeFile(t, filepath.Join(folder, "token"), "secret")
	s := start(t, func(o *Options, _ *limits) { o.TLSCert, o.TLSKey, o.TokenFile = certFile, keyFile, token })
	c, err := client.New(client.Options{Server: s.url, TokenFile: token, CAFile: certFile})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if status, err := c.Status(ctx); err != nil || status.Host != "node1" {
		t.Errorf("%+v, %v", status, err)
	}
	if containers, err := c.Containers(ctx, nil); err != nil || len(containers.Containers) != 2 {
		t.Errorf("%+v, %v", containers, err)
	}
	if ports, err := c.Wait(ctx, url.Values{"container": {"db"}, "port": {"5432/tcp"}}, time.Second); err != nil || len(ports.Ports) != 1 {
		t.Errorf("%+v, %v", ports, err)
	}
	s.history.recordMany(1)
	var got []uint64
	err = c.Stream(ctx, nil, func(m client.Message) error {
		switch {
		case m.Hello != nil:
			s.history.recordMany(2)
		case m.Event != nil:
			got = append(got, m.Event.ID)
			if len(got) == 2 {
				cancel()
			}
		}
		return nil
	})
	if err != nil || len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("%v, %v", got, err)
	}
	if events, err := c.Events(t.Context(), url.Values{"type": {string(model.Opened)}}); err != nil || len(events.Events) != 3 {
		t.Errorf("%+v, %v", events, err)
	}
}
