package main

import (
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	values := []int{5, 1, 4, 2, 3}
	for q, want := range map[float64]int{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if values[0] != 5 || values[4] != 3 {
		t.Errorf("the values are now %v", values)
	}
}

func TestNumbersAreShown(t *testing.T) {
	for want, got := range map[string]string{
		"0":         showCount(0),
		"0.01":      showCount(0.01),
		"1,234,567": showCount(1234567),
		"999":       grouped(999),
		"9,000":     grouped(9000),
		"1.37":      showRatio(1.372),
		"28,707":    showRatio(28707.4),
		"71 µs":     showTime(71 * time.Microsecond),
		"2.4 ms":    showTime(2400 * time.Microsecond),
		"217 ms":    showTime(217 * time.Millisecond),
		"1.25 s":    showTime(1250 * time.Millisecond),
		"19.7 MB":   showMegabytes(19_700_000),
	} {
		if got != want {
			t.Errorf("shown as %q, want %q", got, want)
		}
	}
}
