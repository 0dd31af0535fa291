package output

import (
	"io"
	"testing"
)

func BenchmarkWriteEvent(b *testing.B) {
	for _, format := range []Format{Text, JSON} {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := WriteEvent(io.Discard, format, &opened); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
