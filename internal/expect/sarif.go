package expect

import (
	"fmt"

	"portwatcher/internal/model"
)

// SARIF 2.1.0, as far as code scanning reads it.
// Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID              string            `json:"ruleId"`
		Level               string            `json:"level"`
		Message             sarifText         `json:"message"`
		Locations           []sarifLocation   `json:"locations,omitempty"`
		PartialFingerprints map[string]string `json:"partialFingerprints"`
	}
	sarifLocation struct {
		PhysicalLocation sarifPlace `json:"physicalLocation"`
	}
	sarifPlace struct {
		ArtifactLocation sarifFile   `json:"artifactLocation"`
		Region           sarifRegion `json:"region"`
	}
	sarifFile struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
)

// meanings describe the kinds of drift.
var meanings = map[model.Drift]string{
	model.DriftUnexpected: "A port is open that is not expected.",
	model.DriftMissing:    "A required port is not open.",
	model.DriftWider:      "A port can be reached from further than expected.",
	model.DriftProcess:    "Another program than expected holds a port.",
	model.DriftUncovered:  "No expectation covers a container.",
}

func (r *Report) sarif() *sarifLog {
	run := sarifRun{Tool: sarifTool{sarifDriver{Name: "portwatcher"}}, Results: []sarifResult{}}
	for _, kind := range model.Drifts {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{string(kind), sarifText{meanings[kind]}})
	}
	for i := range r.Drifts {
		d := &r.Drifts[i]
		result := sarifResult{RuleID: string(d.Drift), Level: "error", Message: sarifText{sentence(d)}, PartialFingerprints: map[string]string{
			// Neither a container's id nor a process is part of it, so that a scan recognises what
			// it found before.
			"drift/v1": fmt.Sprintf("%s %s %s %d %s", d.Drift, d.Target, d.Protocol, d.Port, d.Exposure),
		}}
		if r.Entries != nil {
			result.Locations = []sarifLocation{{sarifPlace{sarifFile{r.File}, sarifRegion{r.Entries.lineOf(&d.OpenDrift)}}}}
		}
		run.Results = append(run.Results, result)
	}
	return &sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

// lineOf returns the line of the entry that a drift is about, 1 where there is none.
func (f *File) lineOf(d *model.OpenDrift) int {
	line := 1
	for _, e := range f.Entries {
		if d.Container == nil || !e.Target.Matches(d.Container, func(string) bool { return false }) {
			continue
		}
		if e.Ports.Contains(d.Protocol, d.Port) {
			return e.Line
		}
		if line == 1 {
			line = e.Line
		}
	}
	return line
}
