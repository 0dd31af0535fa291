package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

//go:embed introduction.md
var introduction string

// A report is what one run measured.
type report struct {
	environment []field
	tables      []table
	gaps        []field // what was not measured, and why
}

type field struct{ name, value string }

// A table has columns that are aligned to the right, but for the first.
type table struct {
	title   string
	notes   []string
	columns []string
	rows    [][]string
}

func (r *report) add(t table) { r.tables = append(r.tables, t) }

// missing records what could not be measured, so that it is not skipped in
// silence.
func (r *report) missing(what, reason string) {
	r.gaps = append(r.gaps, field{what, strings.Join(strings.Fields(reason), " ")})
}

// An aim is one measured value and what it should be.
type aim struct {
	what     string
	measured string
	aim      string // empty where there is none
	met      bool
}

func aimTable(title string, notes []string, aims []aim) table {
	t := table{title: title, notes: notes, columns: []string{"Measured", "Value", "Aim", "Met"}}
	for _, a := range aims {
		met := "no"
		switch {
		case a.aim == "":
			met = ""
		case a.met:
			met = "yes"
		}
		t.rows = append(t.rows, []string{a.what, a.measured, a.aim, met})
	}
	return t
}

func (r *report) writeText(w io.Writer) {
	for _, f := range r.environment {
		fmt.Fprintf(w, "%-10s %s\n", f.name+":", f.value)
	}
	for _, t := range r.tables {
		fmt.Fprintf(w, "\n%s\n%s\n\n", t.title, strings.Repeat("=", utf8.RuneCountInString(t.title)))
		t.writeText(w)
		for _, note := range t.notes {
			fmt.Fprintf(w, "\n%s\n", note)
		}
	}
	if len(r.gaps) > 0 {
		fmt.Fprint(w, "\nNot measured\n============\n\n")
		for _, gap := range r.gaps {
			fmt.Fprintf(w, "%s: %s\n", gap.name, gap.value)
		}
	}
}

func (t *table) writeText(w io.Writer) {
	widths := make([]int, len(t.columns))
	lines := append([][]string{t.columns}, t.rows...)
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		for i, cell := range line {
			blanks := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprint(w, cell, blanks)
			} else {
				fmt.Fprint(w, "  ", blanks, cell)
			}
		}
		fmt.Fprintln(w)
	}
}

// saveMarkdown writes the report to a file.
func (r *report) saveMarkdown(path string) error {
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("\n## The machine\n\n| | |\n|---|---|\n")
	for _, f := range r.environment {
		fmt.Fprintf(&b, "| %s | %s |\n", f.name, f.value)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\n", t.title)
		t.writeMarkdown(&b)
		for _, note := range t.notes {
			fmt.Fprintf(&b, "\n%s\n", note)
		}
	}
	if len(r.gaps) > 0 {
		b.WriteString("\n## Not measured\n\n")
		for _, gap := range r.gaps {
			fmt.Fprintf(&b, "- %s: %s\n", gap.name, gap.value)
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (t *table) writeMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "| %s |\n|---%s|\n", strings.Join(t.columns, " | "), strings.Repeat("|---:", len(t.columns)-1))
	for _, row := range t.rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
}
