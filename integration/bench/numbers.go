package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// quantile returns the smallest value that is at least as large as the share q
// (0 to 1) of all values. There must be one; their order stays.
func quantile[T int | int64 | float64 | time.Duration](values []T, q float64) T {
	values = slices.Sorted(slices.Values(values))
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

func median[T int | int64 | float64 | time.Duration](values []T) T { return quantile(values, 0.5) }

// showTime rounds a duration to three digits or so.
func showTime(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
}

func showRatio(ratio float64) string {
	if ratio < 10 {
		return fmt.Sprintf("%.2f", ratio)
	}
	return showCount(ratio)
}

// showCount shows a mean: 0 only where it is exactly 0.
func showCount(count float64) string {
	if count != float64(int64(count)) && count < 10 {
		return fmt.Sprintf("%.2f", count)
	}
	return grouped(int64(count + 0.5))
}

// grouped writes a number that is not negative with commas: 9,000.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

func showMegabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
