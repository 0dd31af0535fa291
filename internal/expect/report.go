package expect

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// Report is the result of a comparison.
type Report struct {
	// File is the path of the file; empty where labels alone were compared.
	File string `json:"file,omitempty"`
	// Time is the moment that was compared; Since begins the time that was, zero for a moment.
	Time  time.Time `json:"time"`
	Since time.Time `json:"since,omitzero"`
	// Drifts are ordered as by [CompareDrifts].
	Drifts []model.DriftPeriod `json:"drifts"`
	// Notes are where labels and the file disagree, labels that cannot be read, and entries that
	// have expired or do so soon. They are no drifts.
	Notes []string `json:"notes"`

	// Targets are all that were compared, sorted.
	Targets []string `json:"-"`
	// Entries are those of the file; nil where there is none.
	Entries *File `json:"-"`
}

// Formats are the forms in which [Report.Write] writes.
var Formats = []string{"table", "json", "junit", "sarif"}

// Write writes the report in one of [Formats].
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "json":
		return writeJSON(w, r)
	case "junit":
		return r.writeJUnit(w)
	case "sarif":
		return writeJSON(w, r.sarif())
	}
	return r.writeTable(w)
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func (r *Report) writeTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Drifts) > 0 {
		fmt.Fprintln(table, "DRIFT\tTARGET\tPORT\tEXPOSURE\tPROCESSES\tEXPECTED\tSINCE\tUNTIL")
	}
	for i := range r.Drifts {
		d := &r.Drifts[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Drift, output.Printable(d.Target), place(&d.OpenDrift), exposure(&d.OpenDrift),
			processes(&d.OpenDrift), orDash(output.Printable(d.Expected)), moment(d.Since), moment(d.Ended))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, note := range r.Notes {
		if _, err := fmt.Fprintln(w, "note: "+output.Printable(note)); err != nil {
			return err
		}
	}
	return nil
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func place(d *model.OpenDrift) string {
	if d.Port == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%s", d.Port, d.Protocol)
}

func exposure(d *model.OpenDrift) string {
	if d.Exposure == "" {
		return "-"
	}
	return output.ReachText(d.Exposure, d.Published)
}

func processes(d *model.OpenDrift) string {
	if len(d.Processes) == 0 {
		return "-"
	}
	return output.ProcessList(d.Processes, 2)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// sentence describes a drift in one line.
func sentence(d *model.DriftPeriod) string {
	text := output.Printable(d.Target) + ": " + output.DriftText(d.Drift, &d.Listener)
	if d.Expected != "" && d.Drift != model.DriftMissing {
		text += "; expected is " + output.Printable(d.Expected)
	}
	if !d.Ended.IsZero() {
		text += fmt.Sprintf(" (from %s to %s)", moment(d.Since), moment(d.Ended))
	}
	return text
}

// JUnit: a test case for each target, which fails with its drifts.
// Source: https://github.com/testmoapp/junitxml.
type (
	junitSuites struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Suite    junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name      string        `xml:"name,attr"`
		ClassName string        `xml:"classname,attr"`
		Failure   *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *Report) writeJUnit(w io.Writer) error {
	suite := junitSuite{Name: "portwatcher expect", Timestamp: r.Time.UTC().Format("2006-01-02T15:04:05")}
	names := slices.Clone(r.Targets)
	for i := range r.Drifts {
		names = append(names, r.Drifts[i].Target)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		one := junitCase{Name: output.Printable(name), ClassName: "portwatcher.expect"}
		var found []string
		for i := range r.Drifts {
			if d := &r.Drifts[i]; d.Target == name {
				found = append(found, sentence(d))
				if one.Failure == nil {
					one.Failure = &junitFailure{Type: string(d.Drift), Message: sentence(d)}
					suite.Failures++
				}
			}
		}
		if one.Failure != nil {
			one.Failure.Text = strings.Join(found, "\n")
		}
		suite.Cases = append(suite.Cases, one)
	}
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(junitSuites{Tests: suite.Tests, Failures: suite.Failures, Suite: suite}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
