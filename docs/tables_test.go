package docs

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables that come from the program")

// metricsFile is what /metrics serves; a test of internal/metrics compares it.
const metricsFile = "internal/metrics/testdata/metrics.txt"

// TestTables compares the tables of the manual with the program; -update writes them.
func TestTables(t *testing.T) {
	table(t, "docs/settings.md", "settings", settings(t))
	table(t, "docs/metrics.md", "metrics", metrics(t))
}

// table compares what stands between the marks of a name with the rows of a table.
func table(t *testing.T, page, name string, rows [][]string) {
	t.Helper()
	if len(rows) < 20 {
		t.Fatalf("%s: only %d rows", name, len(rows))
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
	}
	text := read(t, page)
	marks := regexp.MustCompile(`(?s)(<!-- begin: ` + name + `;.*? -->\n)(.*?)(<!-- end: ` + name + ` -->\n)`)
	at := marks.FindStringSubmatchIndex(text)
	if at == nil {
		t.Fatalf("%s has no marks of the table %s", page, name)
	}
	if text[at[4]:at[5]] == b.String() {
		return
	}
	if !*update {
		t.Errorf("%s: the table of %s is not that of the program; make docs writes it:\n%s", page, name, b.String())
		return
	}
	text = text[:at[4]] + b.String() + text[at[5]:]
	if err := os.WriteFile(filepath.Join(root, page), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settingLine is a setting in the help: flag, kind, usage, variables, default.
var settingLine = regexp.MustCompile(`(?m)^ +--([a-z-]+)(?: (\S+))? {2,}(.*) ` +
	`\[PORTWATCHER_[A-Z_]+(?:, ([^;\]]+))?(; reloadable)?\](?: \(default (.*)\))?$`)

// settings returns a row for each setting.
func settings(t *testing.T) [][]string {
	rows := [][]string{{"flag", "short variable", "default", "reload", "meaning"}, {"---", "---", "---", "---", "---"}}
	for _, match := range settingLine.FindAllStringSubmatch(help(t, "config"), -1) {
		name, kind, usage, short, reload, standard := match[1], match[2], match[3], match[4], match[5], match[6]
		if standard == "" { // the help leaves out what is zero
			switch kind {
			case "":
				standard = "false"
			case "duration", "count", "size", "age":
				standard = "0"
			}
		}
		if standard != "" {
			standard = "`" + standard + "`"
		}
		if variable, unit, found := strings.Cut(short, " "); variable != "" {
			short = "`" + variable + "`"
			if found {
				short += " " + unit
			}
		}
		if reload != "" {
			reload = "yes"
		}
		rows = append(rows, []string{"`--" + name + "`", short, standard, reload, usage})
	}
	return rows
}

var (
	metricLine = regexp.MustCompile(`(?m)^# (HELP|TYPE) (portwatcher_\S+) (.*)$`)
	sampleLine = regexp.MustCompile(`(?m)^(portwatcher_[a-z_]+?)(?:_bucket|_sum|_count)?\{(.*)\} \S+$`)
	labelName  = regexp.MustCompile(`(?:^|",)([a-z_]+)="`)
)

// metrics returns a row for each metric.
func metrics(t *testing.T) [][]string {
	text := read(t, metricsFile)
	helps, labels := map[string]string{}, map[string][]string{}
	for _, match := range sampleLine.FindAllStringSubmatch(text, -1) {
		for _, label := range labelName.FindAllStringSubmatch(match[2], -1) {
			if name := "`" + label[1] + "`"; label[1] != "le" && !slices.Contains(labels[match[1]], name) {
				labels[match[1]] = append(labels[match[1]], name)
			}
		}
	}
	rows := [][]string{{"metric", "type", "labels", "meaning"}, {"---", "---", "---", "---"}}
	for _, match := range metricLine.FindAllStringSubmatch(text, -1) {
		if match[1] == "HELP" {
			helps[match[2]] = match[3]
			continue
		}
		rows = append(rows, []string{"`" + match[2] + "`", match[3], strings.Join(labels[match[2]], ", "), helps[match[2]]})
	}
	return rows
}
