package expect

import (
	"fmt"
	"testing"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// BenchmarkJudge is what an event costs the capture: with a file of 200 entries, and 100
// containers.
func BenchmarkJudge(b *testing.B) {
	file := "version: 1\nexpect:\n"
	for i := range 200 {
		file += fmt.Sprintf("  - {target: shop/service%d, port: %d/tcp, exposure: network, process: nginx}\n", i%100, 1000+i)
	}
	for _, test := range []struct {
		name string
		file *File
		port uint16
	}{{"without a file", nil, 1007}, {"expected", parsed(b, file), 1007}, {"unexpected", parsed(b, file), 9999}} {
		b.Run(test.name, func(b *testing.B) {
			j := NewJudge(nil)
			j.SetFile(test.file, began)
			j.Start(1, began)
			var ref *model.ContainerRef
			for i := range 100 {
				c := composed("shop", fmt.Sprintf("service%d", i))
				j.Running(c, true, 1, began)
				if i == 7 {
					ref = c
				}
			}
			e := model.Event{Time: began, Listener: listener(ref, test.port, model.Network, "nginx")}
			now := clock.Instant(1)
			b.ReportAllocs()
			for b.Loop() {
				for _, e.Type = range []model.Type{model.Opened, model.Closed} {
					one := e
					j.Apply(&one, now)
				}
				j.Periods()
				j.NextExpiry()
				now++
			}
		})
	}
}
