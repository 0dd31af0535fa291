// Package docs checks the documentation against the program and the repository:
// what the pages name must exist, and what exists must be named.
//
// It uses the program as its users do, and reads files; it imports nothing of it.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// root is the root of the repository.
const root = ".."

// folder holds the built command while the tests run.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "docs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(folder) // a temporary folder: what is left of it harms nothing
	os.Exit(code)
}

// program builds the command, and returns its path.
var program = sync.OnceValues(func() (string, error) {
	// Without this walk `go test` would take the result of an earlier run although the
	// program has changed: it notices only what a test opens.
	for _, sources := range []string{"cmd", "internal"} {
		if err := filepath.WalkDir(filepath.Join(root, sources), func(_ string, _ fs.DirEntry, err error) error { return err }); err != nil {
			return "", err
		}
	}
	path := filepath.Join(folder, "portwatcher")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/portwatcher")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build portwatcher: %w: %s", err, output)
	}
	return path, nil
})

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// pages returns the documents that match patterns, relative to the root, with their text.
func pages(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: no page matches (error %v)", pattern, err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = read(t, name)
		}
	}
	return texts
}

// manual returns the pages for users, all those of everybody.
func manual(t *testing.T) map[string]string { return pages(t, "README.md", "docs/*.md") }

func all(t *testing.T) map[string]string {
	return pages(t, "*.md", "docs/*.md", "deploy/*.md", "integration/bench/README.md")
}

// help returns the help of a command, or with no name that of the program.
func help(t *testing.T, command ...string) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(path, append(command, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("portwatcher %s --help: %v: %s", strings.Join(command, " "), err, output)
	}
	return string(output)
}

var commandLine = regexp.MustCompile(`(?m)^  ([a-z]+) +\S`)

// commands returns the names of all commands but help.
func commands(t *testing.T) []string {
	_, list, _ := strings.Cut(help(t), "Available Commands:")
	list, _, _ = strings.Cut(list, "\n\n")
	var names []string
	for _, match := range commandLine.FindAllStringSubmatch(list, -1) {
		if match[1] != "help" {
			names = append(names, match[1])
		}
	}
	if len(names) < 5 {
		t.Fatalf("commands %q", names)
	}
	return names
}

func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(read(t, "README.md"), "\n"); lines >= 150 {
		t.Errorf("README.md has %d lines, want fewer than 150", lines)
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")

// The service to paste is the same in README.md and in the file that CI checks.
func TestAddOn(t *testing.T) {
	block := yamlBlock.FindStringSubmatch(read(t, "README.md"))
	if block == nil {
		t.Fatal("README.md has no YAML")
	}
	var pasted, file map[string]any
	text := strings.ReplaceAll("\n"+block[2], "\n"+block[1], "\n")
	if err := yaml.Unmarshal([]byte(text), &pasted); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/compose.addon.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file) == 0 || !reflect.DeepEqual(pasted, file) {
		t.Errorf("README.md has\n%v\nand deploy/compose.addon.yaml\n%v", pasted, file)
	}
}

// Every command has a row in the README and a section in the manual.
func TestCommands(t *testing.T) {
	readme, manual := read(t, "README.md"), read(t, "docs/commands.md")
	for _, name := range commands(t) {
		if !strings.Contains(readme, "\n| `portwatcher "+name) {
			t.Errorf("README.md: the table of commands lacks %s", name)
		}
		if name != "version" && !strings.Contains(manual, "\n## "+name+"\n") {
			t.Errorf("docs/commands.md has no section %s", name)
		}
	}
	for _, match := range regexp.MustCompile("`portwatcher ([a-z]+)").FindAllStringSubmatch(readme+manual, -1) {
		if !slices.Contains(commands(t), match[1]) {
			t.Errorf("there is no command %s", match[1])
		}
	}
}

// Every flag, variable and metric that the manual names exists.
func TestNames(t *testing.T) {
	known := help(t)
	for _, name := range commands(t) {
		known += help(t, name)
	}
	for _, name := range []string{"check", "learn", "diff", "approve"} {
		known += help(t, "expect", name)
	}
	for _, name := range []string{"test", "replay", "list"} {
		known += help(t, "alerts", name)
	}
	known += read(t, metricsFile)
	// A histogram's series have their own names; portwatcher_ alone is a prefix.
	names := regexp.MustCompile(`--[a-z][a-z-]+|\bPORTWATCHER_[A-Z_]*[A-Z]|\bportwatcher_[a-z_]*[a-z]`)
	for page, text := range manual(t) {
		for _, name := range names.FindAllString(text, -1) {
			if !regexp.MustCompile(regexp.QuoteMeta(name) + `\b`).MatchString(known) {
				t.Errorf("%s: there is no %s", page, name)
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
)

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(text string) []string {
	var names []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(match[1])
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

func TestLinks(t *testing.T) {
	for page, text := range all(t) {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(match[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, target, anchor)
			}
		}
	}
}

// The layout in CONTRIBUTING.md has every package.
func TestLayout(t *testing.T) {
	folders, err := os.ReadDir(filepath.Join(root, "internal"))
	if err != nil {
		t.Fatal(err)
	}
	layout := strings.ReplaceAll(read(t, "CONTRIBUTING.md"), "`internal/", "`")
	for _, folder := range folders {
		if !strings.Contains(layout, "`"+folder.Name()+"`") {
			t.Errorf("CONTRIBUTING.md does not name internal/%s", folder.Name())
		}
	}
}

// Files, folders and make targets that the documents name exist.
func TestPlaces(t *testing.T) {
	makefile := read(t, "Makefile")
	places := regexp.MustCompile("`(?:\\./)?((?:cmd|internal|deploy|docs|integration)/[a-z/_.-]*)`")
	targets := regexp.MustCompile("(?:`|\n +|\n)make ([a-z][a-z-]*)")
	for page, text := range all(t) {
		for _, match := range places.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, match[1])); err != nil && match[1] != "deploy/.env" {
				t.Errorf("%s: %v", page, err)
			}
		}
		for _, match := range targets.FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + match[1] + `:`).MatchString(makefile) {
				t.Errorf("%s: there is no target %s", page, match[1])
			}
		}
	}
}
