package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/capture"
	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/version"
)

// openJournal opens the record. The caller closes it. gap receives the reason where a damaged
// file was moved aside while in use, and where retention deleted what the rules of alerts had not
// read.
func openJournal(s *config.Settings, log logrus.FieldLogger, gap func(reason string)) (*journal.Journal, error) {
	path := s.State
	if path == config.StateMemory {
		path = ""
	}
	j, err := journal.Open(journal.Options{
		Path: path, Retain: s.Retain, RetainSize: s.RetainSize, BootID: bootID(s.ProcRoot), Version: version.String(),
		Logger: log, SetAside: func(aside string) { gap(damaged(aside)) },
		Passed: func(count uint64) {
			gap(fmt.Sprintf("%d events were deleted from the journal before the rules of alerts had read them", count))
		},
	})
	if err != nil {
		return nil, err
	}
	log.Infof("The journal is in %s.", j.Place())
	return j, nil
}

// bootID identifies this boot of the host. It is empty where it cannot be read; then
// nothing is taken for the same as in an earlier run.
func bootID(procRoot string) string {
	text, err := os.ReadFile(filepath.Join(procRoot, "sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// resume returns what an earlier run left in the journal.
func resume(j *journal.Journal, now time.Time) capture.Resume {
	r := capture.Resume{FirstID: j.NextID()}
	before := j.Previous()
	switch {
	case before == nil:
	case before.Corrupt != "":
		r.Gap = damaged(before.Corrupt)
	default:
		r.Again, r.SameBoot, r.Open, r.Drifts = true, before.SameBoot, before.Open, before.Drifts
		r.Gap = away(before, now)
	}
	return r
}

func damaged(aside string) string {
	return fmt.Sprintf("the journal was damaged and has been moved to %s: the new one does not have what happened before", aside)
}

// away returns the reason of the gap between two runs.
func away(before *journal.Previous, now time.Time) string {
	text := "portwatcher was not running"
	if !before.SameBoot {
		text += ", and the host was rebooted"
	}
	if gone := now.Sub(before.LastAlive); gone >= 0 {
		text += fmt.Sprintf(", from %s to %s", before.LastAlive.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	text += ": ports that opened and closed in that time are missing"
	if !before.Clean {
		text += "; it had not stopped in order, and its last events may be missing from the journal"
	}
	return text
}
