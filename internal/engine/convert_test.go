package engine

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"portwatcher/internal/model"
)

// readInspect reads an answer captured from Docker Engine 20.10.
func readInspect(t *testing.T, name string) container.InspectResponse {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var answer container.InspectResponse
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestConvertCaptured(t *testing.T) {
	const web = "2928e81e0edbcf43683f9ffaea2bf681fdf979929137d641208303aceb0dff95"
	exposed := []model.ExposedPort{{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 8080}}
	tests := map[string]struct {
		started string
		want    *model.Container
	}{
		"inspect-web.json": {"2026-11-22T19:41:15.005671569Z", &model.Container{
			ID: web, Name: "pw-engine-web", Image: "pw-engine-scratch", PID: 2035,
			Labels:      map[string]string{model.LabelProject: "shop", model.LabelService: "web"},
			NetworkMode: "pw-engine-net",
			Addresses:   []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00:77::2")},
			Ports: []model.PublishedPort{
				{Protocol: model.UDP, Port: 53, Host: netip.MustParseAddrPort("127.0.0.1:18053")},
				{Protocol: model.TCP, Port: 8080, Host: netip.MustParseAddrPort("0.0.0.0:18080")},
				{Protocol: model.TCP, Port: 8080, Host: netip.MustParseAddrPort("[::]:18080")},
			},
			Exposed: []model.ExposedPort{
				{Protocol: model.UDP, Port: 53}, {Protocol: model.TCP, Port: 8080},
				{Protocol: model.TCP, Port: 9000}, {Protocol: model.TCP, Port: 9001}, {Protocol: model.TCP, Port: 9002},
			},
		}},
		"inspect-shared.json": {"2026-11-22T19:41:39.10404782Z", &model.Container{
			ID: "8581d73342866c1e2017c62104ac0269af262ef02e1af43a8a8822938aae7605", Name: "pw-engine-shared",
			Image: "pw-engine-scratch", PID: 2553, Labels: map[string]string{}, NetworkMode: "container:" + web, Exposed: exposed,
		}},
		"inspect-host.json": {"2026-11-22T19:41:39.892679986Z", &model.Container{
			ID: "65d1768bfbc5e6b7d57d83530f149a9639bd3da4e0f37d2633877797704befce", Name: "pw-engine-host",
			Image: "pw-engine-scratch", PID: 2725, Labels: map[string]string{}, NetworkMode: "host", Exposed: exposed,
		}},
		"inspect-paused.json": {"2026-11-22T19:41:39.678321402Z", &model.Container{
			ID: "8a805ef5a95bcdadd295909f965222c107efafa82b22500f1a4968e29f522b86", Name: "pw-engine-paused",
			Image: "pw-engine-scratch", PID: 2609, Labels: map[string]string{}, NetworkMode: "pw-engine-net", Exposed: exposed,
			Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("fd00:77::3")}, Paused: true,
		}},
		"inspect-stopped.json": {"", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, started, err := convert(readInspect(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if test.want != nil {
				test.want.StartedAt = started
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if text := started.Format(time.RFC3339Nano); test.want != nil && text != test.started {
				t.Errorf("started %s, want %s", text, test.started)
			}
		})
	}
}

// Engines differ in what they leave out; parts that make no sense are named,
// and cost only themselves.
func TestConvertOddities(t *testing.T) {
	if c, _, err := convert(container.InspectResponse{}); c != nil || err != nil {
		t.Errorf("empty answer: got %v, %v", c, err)
	}
	restarting := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{
		State: &container.State{Running: true, Restarting: true},
	}}
	if c, _, _ := convert(restarting); c != nil {
		t.Errorf("restarting: got %v", c)
	}
	settings := &container.NetworkSettings{
		Networks: map[string]*network.EndpointSettings{"a": nil, "b": {IPAddress: "10.0.0.300", GlobalIPv6Address: "fd00::1"}},
	}
	settings.Ports = nat.PortMap{
		"80/tcp": {{HostIP: "", HostPort: "8080"}, {HostIP: "0.0.0.0", HostPort: ""}, {HostIP: "nowhere", HostPort: "1"}, {HostPort: "65536"}},
		"81/tcp": {},
	}
	c, started, err := convert(container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID: "x", Name: "/x", State: &container.State{Running: true, Pid: 7, StartedAt: "yesterday"},
			HostConfig: &container.HostConfig{NetworkMode: "default"},
		},
		Config:          &container.Config{ExposedPorts: nat.PortSet{"8000-8001/udp": {}, "7/dccp": {}, "0/tcp": {}, "9": {}}},
		NetworkSettings: settings,
	})
	if !started.IsZero() {
		t.Errorf("started: got %v", started)
	}
	want := &model.Container{
		ID: "x", Name: "x", PID: 7, NetworkMode: "bridge",
		Addresses: []netip.Addr{netip.MustParseAddr("fd00::1")},
		Ports:     []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")}},
		Exposed:   []model.ExposedPort{{Protocol: model.TCP, Port: 9}, {Protocol: model.UDP, Port: 8000}, {Protocol: model.UDP, Port: 8001}},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	for _, part := range []string{"start time", "dccp", `"0/tcp"`, "nowhere", "65536", "10.0.0.300"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v lacks %q", err, part)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"80/tcp", "80", "8000-8010/udp", "5000/sctp", "-/", "1-65535/tcp", "65535-65536/tcp"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := parsePorts(nat.Port(text))
		if err != nil && ports != nil {
			t.Errorf("%q: both ports and an error", text)
		}
		for i, p := range ports {
			if p.Port == 0 || i > 0 && p.Port != ports[i-1].Port+1 {
				t.Errorf("%q: got %v", text, ports)
			}
		}
	})
}
