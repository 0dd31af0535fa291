package top

// columns are those of the table that fit, with their widths in cells.
type columns struct {
	shown  []column
	widths [columnCount]int
}

var (
	titles = [columnCount]string{"CONTAINER", "PORT", "ADDRESS", "EXPOSURE", "PROCESS", "OPEN FOR"}
	// least is the width below which a column is left out instead.
	least = [columnCount]int{8, 9, 7, 9, 6, ageWidth}
	// dispensable are columns in the order in which they are left out.
	dispensable = []column{columnProcess, columnAddress, columnAge, columnExposure, columnPort}
)

const (
	ageWidth = 9
	gutter   = 2 // before the first column: the cursor and the mark of what is new
	gap      = 2 // between two columns
)

// fitColumns gives each column the width that its longest text takes, and cuts
// the widest ones where that is too much.
func fitColumns(longest *[textColumns]int, width int) columns {
	var c columns
	for i := range columnCount {
		c.shown = append(c.shown, i)
		c.widths[i] = max(len(titles[i])+1, least[i]) // room for the mark of the order
	}
	c.widths[columnAge] = ageWidth
	for i, w := range longest {
		c.widths[i] = max(c.widths[i], w)
	}
	for _, drop := range dispensable {
		if c.leastTotal() <= width {
			break
		}
		c.drop(drop)
	}
	for over := c.total() - width; over > 0; over-- {
		widest := c.widest()
		if c.widths[widest] <= 1 {
			break
		}
		c.widths[widest]--
	}
	return c
}

func (c *columns) total() int {
	sum := gutter + gap*(len(c.shown)-1)
	for _, i := range c.shown {
		sum += c.widths[i]
	}
	return sum
}

func (c *columns) leastTotal() int {
	sum := gutter + gap*(len(c.shown)-1)
	for _, i := range c.shown {
		sum += least[i]
	}
	return sum
}

func (c *columns) drop(which column) {
	kept := c.shown[:0]
	for _, i := range c.shown {
		if i != which {
			kept = append(kept, i)
		}
	}
	c.shown = kept
}

// widest returns the column that has most to give.
func (c *columns) widest() column {
	widest := c.shown[0]
	for _, i := range c.shown {
		if c.widths[i]-least[i] > c.widths[widest]-least[widest] {
			widest = i
		}
	}
	return widest
}
