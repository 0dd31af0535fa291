package config

import (
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// compose.yaml passes on every variable of a setting, but those that its own
// mounts and ports settle, and short names that people set for other programs; and the time
// zone.
func TestComposePassesEveryVariable(t *testing.T) {
	content, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var root struct{ Services map[string]yaml.Node }
	if err := yaml.Unmarshal(content, &root); err != nil {
		t.Fatal(err)
	}
	watcher := root.Services["portwatcher"]
	var service struct{ Environment []string }
	if err := watcher.Decode(&service); err != nil {
		t.Fatal(err)
	}
	settled := []string{
		lookup(State).variable(), lookup(Listen).variable(), lookup(ProcRoot).variable(), lookup(CgroupRoot).variable(), lookup(HealthSocket).variable(),
		"DOCKER_HOST", "CONFIG_FILE", "SNAPSHOT_PATH",
	}
	want := []string{"TZ"}
	for _, s := range table {
		want = append(want, s.variable())
		if s.short != "" {
			want = append(want, s.short)
		}
	}
	want = slices.DeleteFunc(want, func(name string) bool { return slices.Contains(settled, name) })
	slices.Sort(want)
	got := slices.Sorted(slices.Values(service.Environment))
	if !slices.Equal(got, want) {
		t.Errorf("passed on:\n%q\nwant\n%q", got, want)
	}
}
