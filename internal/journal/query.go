package journal

import (
	"math"
	"time"

	"portwatcher/internal/model"
)

// maxID is the largest id: SQLite's integers have 63 bits and a sign.
const maxID = math.MaxInt64

// Query selects events. What is zero or empty selects all; all that is set
// must match.
type Query struct {
	// Since is inclusive, Until exclusive. Until is after Since, or nothing is selected.
	Since, Until time.Time
	// AfterID and BeforeID are exclusive, and up to the largest int64; 0: none.
	AfterID, BeforeID uint64
	// Filter compares containers among all that the journal has, with their newest
	// labels.
	model.Filter
	// Limit is how many events there are at most; 0: all. They are the last that
	// match, or with FromStart the first. The order is always that of the ids.
	Limit     int
	FromStart bool
}
