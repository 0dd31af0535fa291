package output

import "testing"

func BenchmarkAppendEvent(b *testing.B) {
	for _, format := range []Format{Text, JSON} {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			var line []byte
			for b.Loop() {
				line = AppendEvent(line[:0], format, &opened)
			}
		})
	}
}
