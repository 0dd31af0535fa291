package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestExample(t *testing.T) {
	var example strings.Builder
	if err := WriteExample(&example); err != nil {
		t.Fatal(err)
	}
	golden(t, "example.yaml", example.String())
	settings, err := load(t, []string{"--config", write(t, example.String())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := texts(settings), texts(defaults()); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, s := range table {
		if from := settings.origins[s.name]; !s.flagOnly && !strings.HasPrefix(from, "file ") {
			t.Errorf("%s is not in the example: %s", s.name, from)
		}
	}
}

func TestWriteYAML(t *testing.T) {
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("settings.yaml", []byte("# by hand\nretain: 2w\nwatch_ports: [80, 53/udp]\nretain_size: 1536MiB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := load(t,
		[]string{"--config", "settings.yaml", "--close-grace=30m30s", "--monitor-containers=web,db-*,!noisy,label:a=b#c, 12", "--docker-host=tcp://h:1/# x"},
		[]string{"SCAN_INTERVAL=0.25", "PORTWATCHER_UDP_CLIENTS=1", "PORTWATCHER_HOST_NAME=true", "PORTWATCHER_HEALTH_SOCKET="})
	if err != nil {
		t.Fatal(err)
	}
	var text, object strings.Builder
	if err := errors.Join(WriteYAML(&text, settings), WriteJSON(&object, settings)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	golden(t, "effective.yaml", text.String())
	golden(t, "effective.json", object.String())
	if !json.Valid([]byte(object.String())) {
		t.Error("no JSON")
	}
	again, err := load(t, []string{"--config", write(t, text.String())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := texts(again), texts(settings); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestScalar(t *testing.T) {
	for text, want := range map[string]string{
		"": `""`, "web": "web", "a b": `"a b"`, "true": `"true"`, "no": `no`, "~": `"~"`, "null": `"null"`, "12": "12", "1.5": "1.5", "@x": `"@x"`, "!x": `"!x"`, "*": `"*"`,
		"a:b": "a:b", "a:": `"a:"`, "-": `"-"`, "a#b": `"a#b"`, "é": `"é"`, "\x7f\u0085\u2028": `"\x7f\u0085\u2028"`, `"`: `"\""`, "2001-01-01": "2001-01-01", "-x": `"-x"`, "<<": `"<<"`, "=": `"="`, ".inf": ".inf", "0x1F": "0x1F",
	} {
		if got := scalar(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
		for _, form := range []string{"a: %s  # x", "a: [%s]  # x", "a: [%s, x]", "a: [x, %s]"} {
			var read map[string]yaml.Node
			content := fmt.Sprintf(form, scalar(text))
			if err := yaml.Unmarshal([]byte(content), &read); err != nil {
				t.Errorf("%s: %v", content, err)
				continue
			}
			node := read["a"]
			if node.Kind == yaml.SequenceNode {
				node = *node.Content[strings.Index(form, "%s")/7]
			}
			if node.Value != text || !slices.Contains(textTags, node.Tag) {
				t.Errorf("%s: read as %q, %s", content, node.Value, node.Tag)
			}
		}
	}
}

// A secret is shown neither in an error nor among the settings.
func TestSecret(t *testing.T) {
	lookup(HostName).secret = true
	t.Cleanup(func() { lookup(HostName).secret = false })
	for _, arguments := range [][]string{{"--host-name=is hidden"}, {"--config=" + write(t, "host_name: is hidden")}} {
		_, err := load(t, arguments, nil)
		if err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), `"(secret)": allowed are`) {
			t.Errorf("got %v", err)
		}
	}
	settings, err := load(t, []string{"--host-name=hidden"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := errors.Join(WriteYAML(&out, settings), WriteJSON(&out, settings)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hidden") || !strings.Contains(out.String(), "\n# host_name: (secret)") || !strings.Contains(out.String(), `"value": "(secret)"`) {
		t.Error(out.String())
	}
}
