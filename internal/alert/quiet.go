package alert

import (
	"fmt"
	"time"

	"portwatcher/internal/alert/notify"
	"portwatcher/internal/model"
)

// Quiet are hours in which messages are held back. It is immutable.
type Quiet struct {
	// From and To are minutes after midnight, in Zone. Where To is not after From the hours end
	// on the next day.
	From, To int
	Zone     *time.Location
	// Except is the least severity that is sent all the same; empty for none.
	Except notify.Severity
}

// parseQuiet returns the field that is wrong with an error.
func parseQuiet(f fileQuiet) (q Quiet, field string, err error) {
	if q.From, err = parseClock(f.From); err != nil {
		return q, "from", err
	}
	if q.To, err = parseClock(f.To); err != nil {
		return q, "to", err
	}
	if q.From == q.To {
		return q, "to", fmt.Errorf("%s: allowed is another time than from", model.Quoted(f.To))
	}
	q.Zone = time.UTC
	if f.Zone != "" {
		if q.Zone, err = time.LoadLocation(f.Zone); err != nil || f.Zone == "Local" {
			return q, "zone", fmt.Errorf("%s: allowed are the names of the time zone database, such as Europe/Berlin, and UTC", model.Quoted(f.Zone))
		}
	}
	if f.Except != "" {
		if q.Except, err = notify.ParseSeverity(f.Except); err != nil {
			return q, "except", fmt.Errorf("%s: %w, each with those above it", model.Quoted(f.Except), err)
		}
	}
	return q, "", nil
}

func parseClock(text string) (int, error) {
	at, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf(`%s: allowed is a time of day, in quotes, from "00:00" to "23:59"`, model.Quoted(text))
	}
	return at.Hour()*60 + at.Minute(), nil
}

// holds reports whether a message of a severity is held back at a time.
func (q *Quiet) holds(t time.Time, s notify.Severity) bool {
	return q.contains(t) && (q.Except == "" || s.Compare(q.Except) < 0)
}

func (q *Quiet) contains(t time.Time) bool {
	local := t.In(q.Zone)
	minute := local.Hour()*60 + local.Minute()
	if q.From < q.To {
		return minute >= q.From && minute < q.To
	}
	return minute >= q.From || minute < q.To
}

// quietly reports whether the settings hold back a message of a severity at a time.
func (c *Config) quietly(t time.Time, s notify.Severity) bool {
	for i := range c.Quiet {
		if c.Quiet[i].holds(t, s) {
			return true
		}
	}
	return false
}

// FromText and ToText are the hours as in the settings, "22:00".
func (q *Quiet) FromText() string { return clockText(q.From) }

// ToText is the end; see [Quiet.FromText].
func (q *Quiet) ToText() string { return clockText(q.To) }

func clockText(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }
