package main

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
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

// missing records what could not be measured, so that it is not skipped silently.
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

// value is a measured value without an aim.
func value(what, measured string) aim { return aim{what, measured, "", false} }

// noMore is the aim of a number that must not be higher than before.
func noMore(what string, before, after int) aim {
	return aim{what, fmt.Sprintf("%d, %d before", after, before), "no more", after <= before}
}

// below is the aim of a time.
func below(what string, measured, limit time.Duration) aim {
	return aim{what, showTime(measured), "under " + showTime(limit), measured < limit}
}

func aimTable(title string, notes []string, aims []aim) table {
	t := table{title: title, notes: notes, columns: []string{"Measured", "Value", "Aim", "Met"}}
	for _, a := range aims {
		met := map[bool]string{true: "yes", false: "no"}[a.met]
		if a.aim == "" {
			met = ""
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
		fmt.Fprintf(&b, "\n## %s\n\n| %s |\n|---%s|\n", t.title, strings.Join(t.columns, " | "), strings.Repeat("|---:", len(t.columns)-1))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
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

type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

// quantile returns the smallest value that is at least as large as the share q (0 to 1) of
// all values. There must be one; their order stays.
func quantile[T number](values []T, q float64) T {
	values = slices.Sorted(slices.Values(values))
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

func median[T number](values []T) T { return quantile(values, 0.5) }

// showTime rounds a duration to three digits or so.
func showTime(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}

// showTimes are the cells of a distribution: median, p99 and the slowest, empty where there
// is no value.
func showTimes(times []time.Duration) []string {
	if len(times) == 0 {
		return []string{"", "", ""}
	}
	return []string{showTime(quantile(times, 0.5)), showTime(quantile(times, 0.99)), showTime(quantile(times, 1))}
}

func showRatio(ratio float64) string {
	if ratio < 10 {
		return fmt.Sprintf("%.2f", ratio)
	}
	return showMean(ratio)
}

// showMean shows a mean: 0 only where it is exactly 0.
func showMean(mean float64) string {
	if mean != math.Trunc(mean) && mean < 10 {
		return fmt.Sprintf("%.2f", mean)
	}
	return showCount(int64(mean + 0.5))
}

// showCount writes a number with commas: 9,000.
func showCount[T ~int | ~int64 | ~uint64](n T) string {
	if n < 0 {
		return "-" + showCount(-n)
	}
	digits := strconv.FormatInt(int64(n), 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// showShare rounds down: 100 % is all.
func showShare[T ~int | ~uint64](part, whole T) string {
	return fmt.Sprintf("%.2f %%", math.Floor(float64(part)/float64(max(whole, 1))*1e4)/100)
}

func showMegabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

func showPercent(share float64) string { return fmt.Sprintf("%.2f %%", share*100) }

// showPrecise shows CPU seconds of something small.
func showPrecise(seconds float64) string { return fmt.Sprintf("%.2f µs", seconds*1e6) }
