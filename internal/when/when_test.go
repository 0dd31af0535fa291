package when

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // as in the command
)

func TestParse(t *testing.T) {
	now := time.Date(2026, 11, 22, 18, 36, 28, 5e8, time.FixedZone("local", 3600))
	day := func(d, h, m, s int) time.Time { return time.Date(2026, 11, d, h, m, s, 0, now.Location()) }
	for text, want := range map[string]time.Time{
		"now": now, "1h": now.Add(-time.Hour), "-1h": now.Add(-time.Hour), "1w2d3h": now.Add(-(9*24 + 3) * time.Hour),
		"0.5d": now.Add(-12 * time.Hour), "90s": now.Add(-90 * time.Second),
		"2026-11-22T17:36:28.123456789Z": time.Date(2026, 11, 22, 17, 36, 28, 123456789, time.UTC),
		"2026-11-22t17:36z":              time.Date(2026, 11, 22, 17, 36, 0, 0, time.UTC),
		"2026-11-22T18:36:28":            day(22, 18, 36, 28), "2026-11-22 18:36": day(22, 18, 36, 0), "2026-11-22": day(22, 0, 0, 0),
		"18:00": day(22, 18, 0, 0), "18:36:29": day(21, 18, 36, 29), " 18:36:28 ": day(22, 18, 36, 28),
	} {
		if got, err := Parse(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, error %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "yesterday", "1", "1y", "25:00", "2026-13-01", "1d1w1", "-", "--1h", "99999999d", "1e400d"} {
		if got, err := Parse(text, now); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestCheckZone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, ok := range map[string]bool{
		"": true, "UTC": true, "Europe/Berlin": true, ":Europe/Berlin": true, "/usr/share/zoneinfo/none": false, file: false,
		"Europe/Atlantis": false, "Europe": false, "CET-1CEST": false, "../UTC": false, "Local": false,
	} {
		err := CheckZone(value, true)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), value) {
			t.Errorf("%q: error %v, want one: %t", value, err, !ok)
		}
	}
	if err := CheckZone("", false); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"1h", "1w2d", "2026-11-22", "18:36", "now", "-5d"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 22, 18, 36, 28, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := ParseDuration(text); err == nil && (d < 0 || float64(d) > maxDuration) {
			t.Errorf("%q is %v", text, d)
		}
		at, err := Parse(text, now)
		if err != nil && !at.IsZero() {
			t.Errorf("%q: %v with error %v", text, at, err)
		}
	})
}
