package server

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// lateCapture has no containers until it is released.
type lateCapture struct {
	*fakeCapture
	late  []model.ContainerState
	known atomic.Bool
}

func (c *lateCapture) View() *model.View {
	if c.known.Load() {
		return &model.View{Containers: c.late}
	}
	return &model.View{}
}

// An address that everybody can read from is logged as a warning; no other is.
func TestWhoReachesIsTold(t *testing.T) {
	own := model.Namespace{Device: 4, Inode: 7}
	at := func(hosts ...string) (all []model.PublishedPort) {
		for _, host := range hosts {
			all = append(all, model.PublishedPort{Protocol: model.TCP, Port: 1, Host: netip.MustParseAddrPort(host)})
		}
		return all
	}
	token := writeFile(t, filepath.Join(t.TempDir(), "token"), "secret")
	for name, test := range map[string]struct {
		listen    string
		namespace model.Namespace
		published []model.PublishedPort
		token     string
		mode      string
		wants     []string // with the level
		without   string
	}{
		"loopback":               {listen: "127.0.0.1:0", without: "reach"},
		"the host":               {listen: "0.0.0.0:0", wants: []string{"warning Everybody who reaches", "--listen 127.0.0.1:"}},
		"the host, with a token": {listen: "0.0.0.0:0", token: token, without: "Everybody"},
		"a container's":          {listen: "0.0.0.0:0", namespace: own, published: at("127.0.0.1:9888"), wants: []string{"info On this host it is at http://127.0.0.1:9888;"}, without: "warning"},
		"in the host's": {
			listen: "0.0.0.0:0", namespace: own, mode: "host", wants: []string{"warning Everybody who reaches"},
		},
		"in no container's": {listen: "0.0.0.0:0", namespace: model.Namespace{Inode: 9}, wants: []string{"warning Everybody who reaches"}},
		"not published":     {listen: "0.0.0.0:0", namespace: own, wants: []string{"info Port", "published nowhere"}, without: "warning"},
		"published to all": {
			listen: "0.0.0.0:0", namespace: own, published: at("[::1]:80", "0.0.0.0:9888", "[::]:9888"),
			wants: []string{"warning Port", "published at 0.0.0.0:9888, [::]:9888:", "--token-file", "info On this host it is at http://[::1]:80;"},
		},
		"published to all, with a token": {listen: "0.0.0.0:0", namespace: own, published: at("127.0.0.1:80", "0.0.0.0:9888"), token: token, wants: []string{"info On this host"}, without: "warning"},
	} {
		t.Run(name, func(t *testing.T) {
			capture := &lateCapture{fakeCapture: &fakeCapture{notReady: errors.New("starting")}}
			s := start(t, func(o *Options, _ *limits) {
				o.Listen, o.Namespace, o.TokenFile, o.Capture = test.listen, test.namespace, test.token, capture
			})
			number := netip.MustParseAddrPort(s.Addr().String()).Port()
			for i := range test.published {
				test.published[i].Port = number
			}
			capture.late = []model.ContainerState{
				{Container: &model.Container{Name: "other", Ports: []model.PublishedPort{{Protocol: model.TCP, Port: number, Host: netip.MustParseAddrPort("0.0.0.0:1")}}}, Namespace: model.Namespace{Inode: 8}},
				{Container: &model.Container{Name: "self", NetworkMode: test.mode, Ports: test.published}, Namespace: own},
			}
			capture.known.Store(true)
			capture.set(func(f *fakeCapture) { f.notReady = nil })
			logged := func() string {
				var lines strings.Builder
				for _, entry := range s.logs.AllEntries() {
					lines.WriteString(entry.Level.String() + " " + entry.Message + "\n")
				}
				return lines.String()
			}
			kernel.Eventually(t, "it is logged", func() bool {
				for _, want := range append(test.wants, "info Serving the page") {
					if !strings.Contains(logged(), want) {
						return false
					}
				}
				return true
			})
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			if test.without != "" && strings.Contains(logged(), test.without) {
				t.Errorf("logged %q, want nothing of %q", logged(), test.without)
			}
		})
	}
}
