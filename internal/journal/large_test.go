package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
)

// largeEvents fill half of the default size of a journal.
const largeEvents = 6_500_000

// varied makes traffic in which some values are rare, absent from the newest events, or in
// no event at all: exposure host, type changed.
func varied(t *journaltest.Traffic, n int) func() Record {
	rare := &model.ContainerRef{ID: fmt.Sprintf("%064x", 7), Name: "rare", Image: "redis:7", Labels: map[string]string{"team": "few"}}
	return func() Record {
		e := t.Next()
		opened := e.Type == model.Opened
		switch id := t.ID; {
		case id%1_000_000 == 500_000:
			*e = model.Event{ID: e.ID, Time: e.Time, Type: model.Gap, Listener: model.Listener{Host: "node1"}, Reason: "217 notifications were lost"}
		case opened && id < uint64(n)/10 && id%1000 < 2:
			e.Port = 8080
		case opened && id%500_000 < 4:
			e.Container = rare
		case opened && id%100 == 7:
			e.Protocol = model.UDP
		case opened && id%20 == 9:
			e.Exposure, e.Published = model.Published, []string{"0.0.0.0:80"}
		}
		if opened && e.Port != 8080 {
			e.Port = 20_000 + e.Port%20_000
		}
		return Record{Event: e}
	}
}

// openLarge opens a journal of largeEvents; every benchmark of filters uses the same.
func openLarge(b *testing.B) *Reader {
	b.Helper()
	path, err := million()
	if err != nil {
		b.Fatal(err)
	}
	path = filepath.Join(filepath.Dir(path), "large.db")
	if !exists(path) {
		all := journaltest.New(50, 1, time.Now().Add(-month), month/largeEvents)
		next := varied(all, largeEvents)
		began, first := time.Now(), all.Now
		j := start(b, Options{Path: path, Now: func() time.Time { return first }})
		for range largeEvents {
			for r := next(); !j.Offer(r); {
				time.Sleep(time.Millisecond)
			}
		}
		j.await(all.ID)
		j.stop()
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%d events, %.0f a second, %d MB", largeEvents, largeEvents/time.Since(began).Seconds(), info.Size()>>20)
		removeAtEnd = filepath.Dir(path)
	}
	r, err := OpenReader(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return r
}

// BenchmarkFilters asks for a page of the newest events, as the API does, that match.
func BenchmarkFilters(b *testing.B) {
	r := openLarge(b)
	ports := func(text string) model.PortSet {
		set, err := model.ParsePorts(text)
		if err != nil {
			b.Fatal(err)
		}
		return set
	}
	transient := true
	hour := time.Now().Add(-time.Hour)
	for name, q := range map[string]Query{
		"all":                            {},
		"type=gap":                       {Filter: model.Filter{Types: []model.Type{model.Gap}}},
		"type=changed":                   {Filter: model.Filter{Types: []model.Type{model.Changed}}},
		"type=opened":                    {Filter: model.Filter{Types: []model.Type{model.Opened}}},
		"port=8080":                      {Filter: model.Filter{Ports: ports("8080")}},
		"port=80":                        {Filter: model.Filter{Ports: ports("80")}},
		"port=20000-21000/udp":           {Filter: model.Filter{Ports: ports("20000-21000/udp")}},
		"container=shop_web_7":           {Filter: containers(b, "shop_web_7")},
		"container=rare":                 {Filter: containers(b, "rare")},
		"container=nothing":              {Filter: containers(b, "nothing")},
		"container=shop_*":               {Filter: containers(b, "shop_*")},
		"label":                          {Filter: containers(b, "label:team=few")},
		"project=shop":                   {Filter: model.Filter{Project: "shop"}},
		"protocol=udp":                   {Filter: model.Filter{Protocols: []model.Protocol{model.UDP}}},
		"protocol=99":                    {Filter: model.Filter{Protocols: []model.Protocol{99}}},
		"exposure=published":             {Filter: model.Filter{Exposures: []model.Exposure{model.Published}}},
		"exposure=host":                  {Filter: model.Filter{Exposures: []model.Exposure{model.Host}}},
		"transient":                      {Filter: model.Filter{Transient: &transient}},
		"container=shop_web_7&port=8080": {Filter: model.Filter{Containers: containers(b, "shop_web_7").Containers, Ports: ports("8080")}},
		"container=shop_web_7&port=80":   {Filter: model.Filter{Containers: containers(b, "shop_web_7").Containers, Ports: ports("80")}},
		"udp&published":                  {Filter: model.Filter{Protocols: []model.Protocol{model.UDP}, Exposures: []model.Exposure{model.Published}}},
		"since=1h&port=8080":             {Since: hour, Filter: model.Filter{Ports: ports("8080")}},
		"until=1h&type=gap":              {Until: hour, Filter: model.Filter{Types: []model.Type{model.Gap}}},
		"since=1h&container":             {Since: hour, Filter: containers(b, "shop_web_7")},
		"before&port=8080":               {BeforeID: largeEvents / 2, Filter: model.Filter{Ports: ports("8080")}},
		"after&port=8080":                {AfterID: 1, FromStart: true, Filter: model.Filter{Ports: ports("8080")}},
		"after&port=80":                  {AfterID: 1, FromStart: true, Filter: model.Filter{Ports: ports("80")}},
	} {
		b.Run(name, func(b *testing.B) {
			q.Limit = 500
			n := 0
			for b.Loop() {
				n = 0
				for _, err := range r.Events(b.Context(), q) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(n), "events")
		})
	}
	b.Run("at", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := r.At(b.Context(), time.Now().Add(-month/2), model.Filter{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
