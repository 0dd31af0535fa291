package top

import "slices"

type column int

const (
	columnContainer column = iota
	columnPort
	columnAddress
	columnExposure
	columnProcess
	columnAge
	columnCount
)

// textColumns are the columns whose text is part of a row; the age changes by itself.
const textColumns = columnAge

var (
	titles = [columnCount]string{"CONTAINER", "PORT", "ADDRESS", "EXPOSURE", "PROCESS", "OPEN FOR"}
	// least is the width below which a column is left out instead.
	least = [columnCount]int{8, 9, 7, 9, 6, ageWidth}
	// dispensable are columns in the order in which they are left out.
	dispensable = []column{columnProcess, columnAddress, columnAge, columnExposure, columnPort}
)

const (
	ageWidth = 9
	gutter   = 2 // before the first column: the cursor and the mark of a new row
	gap      = 2 // between two columns
)

// columns are the columns that fit, with their widths in cells.
type columns struct {
	shown  []column
	widths [columnCount]int
}

// fitColumns gives each column the width of its longest text. Where that is too much it leaves
// columns out, and then cuts the widest.
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
		if c.sum(&least) <= width {
			break
		}
		c.shown = slices.DeleteFunc(c.shown, func(i column) bool { return i == drop })
	}
	for over := c.total() - width; over > 0; over-- {
		widest := slices.MaxFunc(c.shown, func(a, b column) int { return c.widths[a] - least[a] - c.widths[b] + least[b] })
		if c.widths[widest] <= 1 {
			break
		}
		c.widths[widest]--
	}
	return c
}

func (c *columns) total() int { return c.sum(&c.widths) }

func (c *columns) sum(widths *[columnCount]int) int {
	sum := gutter + gap*(len(c.shown)-1)
	for _, i := range c.shown {
		sum += widths[i]
	}
	return sum
}
