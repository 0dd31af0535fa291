package journal

import (
	"fmt"
	"math"
	"time"

	"portwatcher/internal/model"
)

// maxID is the largest id: SQLite's integers have 63 bits and a sign.
const maxID = math.MaxInt64

// Query selects events. What is zero or empty selects all; all that is set
// must match.
type Query struct {
	// Since is inclusive, Until exclusive.
	Since, Until time.Time
	// AfterID and BeforeID are exclusive; 0: none.
	AfterID, BeforeID uint64
	// Filter compares containers among all that the journal has, with their newest
	// labels.
	model.Filter
	// Limit is how many events there are at most; 0: all. They are the last that
	// match, or with FromStart the first. The order is always that of the ids.
	Limit     int
	FromStart bool
}

// Check returns an error that names the field of the query that makes no sense,
// and what is allowed.
func (q *Query) Check() error {
	switch {
	case q.Limit < 0:
		return fmt.Errorf("limit %d: allowed are 1 and more, and 0 for all", q.Limit)
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return fmt.Errorf("since %s is not before until %s", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
	case q.AfterID > maxID || q.BeforeID > maxID:
		return fmt.Errorf("after and before: the largest id is %d", uint64(maxID))
	}
	return nil
}
