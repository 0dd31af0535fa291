package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// description is what the test reads of the API's description.
type description struct {
	Paths map[string]struct {
		Get struct{ Parameters []parameter }
	}
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]struct {
			Properties map[string]yaml.Node
			Enum       []string
		}
	}
}

type parameter struct {
	Name string
	Ref  string `yaml:"$ref"`
}

// The page of the API names each address, parameter, field of an event and value of one.
func TestAPI(t *testing.T) {
	var api description
	if err := yaml.Unmarshal([]byte(read(t, "internal/server/openapi.yaml")), &api); err != nil {
		t.Fatal(err)
	}
	var names, paths []string
	for path, item := range api.Paths {
		names, paths = append(names, path), append(paths, path)
		for _, p := range item.Get.Parameters {
			if p.Ref != "" {
				p = api.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
			}
			names = append(names, p.Name)
		}
	}
	for name := range api.Components.Schemas["Event"].Properties {
		names = append(names, name)
	}
	for _, list := range []string{"Protocol", "Type", "Source", "Exposure", "Drift"} {
		names = append(names, api.Components.Schemas[list].Enum...)
	}
	if len(names) < 40 {
		t.Fatalf("openapi.yaml is not understood: %q", names)
	}
	page := read(t, "docs/api.md")
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/api.md does not name %s", name)
		}
	}
	address := regexp.MustCompile(`/api/v1/[a-z.]*[a-z]`)
	for page, text := range manual(t) {
		for _, path := range address.FindAllString(text, -1) {
			if !slices.Contains(paths, path) {
				t.Errorf("%s: there is no address %s", page, path)
			}
		}
	}
}
