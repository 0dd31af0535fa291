package alert

import (
	"testing"
	"time"

	"portwatcher/internal/alert/notify"
)

func TestQuiet(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		moment, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return moment.UTC()
	}
	night := fileQuiet{From: "22:00", To: "07:00", Zone: "Europe/Berlin", Except: "critical"}
	lunch := fileQuiet{From: "12:00", To: "13:00", Zone: "Europe/Berlin"}
	for _, test := range []struct {
		hours    fileQuiet
		at       string
		severity notify.Severity
		want     bool
	}{
		{night, "2026-11-23 21:59", notify.Warning, false},
		{night, "2026-11-23 22:00", notify.Warning, true},
		{night, "2026-11-23 22:00", notify.Critical, false},
		{night, "2026-11-24 00:00", notify.Info, true},
		{night, "2026-11-24 06:59", notify.Info, true},
		{night, "2026-11-24 07:00", notify.Info, false},
		{night, "2026-07-01 06:59", notify.Info, true}, // summer time
		{night, "2026-07-01 07:00", notify.Info, false},
		{night, "2026-10-25 02:30", notify.Info, true}, // the hour that comes twice
		{lunch, "2026-11-23 11:59", notify.Info, false},
		{lunch, "2026-11-23 12:30", notify.Critical, true},
		{lunch, "2026-11-23 13:00", notify.Critical, false},
	} {
		q, _, err := parseQuiet(test.hours)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.holds(at(test.at), test.severity); got != test.want {
			t.Errorf("%s to %s at %s, %s: %t, want %t", test.hours.From, test.hours.To, test.at, test.severity, got, test.want)
		}
	}
}

func TestDelays(t *testing.T) {
	for _, test := range []struct {
		tried int
		asked time.Duration
		want  time.Duration
	}{
		{1, 0, 5 * time.Second}, {2, 0, time.Minute}, {3, 0, 5 * time.Minute}, {4, 0, 30 * time.Minute}, {5, 0, 2 * time.Hour}, {50, 0, 2 * time.Hour},
		{1, time.Hour, time.Hour}, {4, time.Minute, 30 * time.Minute}, {1, 100 * time.Hour, maxAsked},
	} {
		if got := delayAfter(standardDelays, test.tried, test.asked, 0); got != test.want {
			t.Errorf("after %d tries, asked for %s: %s, want %s", test.tried, test.asked, got, test.want)
		}
	}
	if got := delayAfter(standardDelays, 2, 0, 1); got != 66*time.Second {
		t.Errorf("with all of the jitter %s, want 66s", got)
	}
}
