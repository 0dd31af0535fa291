package alert

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the tables of docs/alerts.md")

// The tables of the manual are those of the program; -update writes them.
func TestManual(t *testing.T) {
	rules := [][]string{{"rule", "severity", "for", "when"}, {"---", "---", "---", "---"}}
	for _, r := range standardRules {
		lasts := ""
		if r.For > 0 {
			lasts = r.For.String()
		}
		rules = append(rules, []string{"`" + r.Name + "`", r.Severity, lasts, "`" + r.When + "`"})
	}
	variables := [][]string{{"variable", "type", "meaning"}, {"---", "---", "---"}}
	for _, v := range Variables() {
		variables = append(variables, []string{"`" + v.Name + "`", v.Type, v.About})
	}
	table(t, "rules", rules)
	table(t, "variables", variables)
}

func table(t *testing.T, name string, rows [][]string) {
	t.Helper()
	const page = "../../docs/alerts.md"
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	marks := regexp.MustCompile(`(?s)(<!-- begin: ` + name + `;.*? -->\n)(.*?)(<!-- end: ` + name + ` -->\n)`)
	at := marks.FindSubmatchIndex(content)
	if at == nil {
		t.Fatalf("%s has no marks of the table %s", page, name)
	}
	if string(content[at[4]:at[5]]) == b.String() {
		return
	}
	if !*update {
		t.Errorf("%s: the table of %s is not that of the program; make docs writes it:\n%s", page, name, b.String())
		return
	}
	content = []byte(string(content[:at[4]]) + b.String() + string(content[at[5]:]))
	if err := os.WriteFile(page, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The settings of the manual, and those of the deployment, are valid.
func TestExamples(t *testing.T) {
	manual, err := os.ReadFile("../../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(manual)
	if block == nil {
		t.Fatal("the manual has no YAML")
	}
	examples := map[string][]byte{"docs/alerts.md": block[1]}
	for _, name := range []string{"demo", "alertmanager"} {
		if examples[name], err = os.ReadFile("../../deploy/alerts/" + name + ".yaml"); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range examples {
		var file struct{ Alerts yaml.Node }
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c, err := Parse(Settings{File: name, Node: &file.Alerts})
		if err != nil || !c.Enabled() {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}
