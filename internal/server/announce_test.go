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

// lateCapture knows its containers when it is told to.
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

// Whoever can be read from by everybody is warned, and nobody else.
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
		says      []string // with the level
		silent    string
	}{
		"loopback":               {listen: "127.0.0.1:0", silent: "reach"},
		"the host":               {listen: "0.0.0.0:0", says: []string{"warning Everybody who reaches", "--listen 127.0.0.1:"}},
		"the host, with a token": {listen: "0.0.0.0:0", token: token, silent: "Everybody"},
		"a container's":          {listen: "0.0.0.0:0", namespace: own, published: at("127.0.0.1:9888"), says: []string{"info On this host it is at http://127.0.0.1:9888;"}, silent: "warning"},
		"in the host's": {
			listen: "0.0.0.0:0", namespace: own, mode: "host", says: []string{"warning Everybody who reaches"},
		},
		"in no container's": {listen: "0.0.0.0:0", namespace: model.Namespace{Inode: 9}, says: []string{"warning Everybody who reaches"}},
		"not published":     {listen: "0.0.0.0:0", namespace: own, says: []string{"info Port", "published nowhere"}, silent: "warning"},
		"published to all": {
			listen: "0.0.0.0:0", namespace: own, published: at("[::1]:80", "0.0.0.0:9888", "[::]:9888"),
			says: []string{"warning Port", "published at 0.0.0.0:9888, [::]:9888:", "--token-file", "info On this host it is at http://[::1]:80;"},
		},
		"published to all, with a token": {listen: "0.0.0.0:0", namespace: own, published: at("127.0.0.1:80", "0.0.0.0:9888"), token: token, says: []string{"info On this host"}, silent: "warning"},
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
			told := func() string {
				var lines strings.Builder
				for _, entry := range s.logs.AllEntries() {
					lines.WriteString(entry.Level.String() + " " + entry.Message + "\n")
				}
				return lines.String()
			}
			kernel.Eventually(t, "it is told", func() bool {
				for _, want := range append(test.says, "info Serving the page") {
					if !strings.Contains(told(), want) {
						return false
					}
				}
				return true
			})
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			if test.silent != "" && strings.Contains(told(), test.silent) {
				t.Errorf("told %q, want nothing of %q", told(), test.silent)
			}
		})
	}
}
