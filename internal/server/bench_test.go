package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// benchmark asks for a path over loopback with 3,000 open ports, and reports
// requests a second and the slowest in a hundred.
func benchmark(b *testing.B, path, encoding string) {
	s := start(b, nil)
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(3000) })
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var mutex sync.Mutex
	var all []time.Duration
	var size int64
	b.SetParallelism(4)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var took []time.Duration
		for pb.Next() {
			began := time.Now()
			request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.url+path, nil)
			if err != nil {
				b.Error(err)
				return
			}
			request.Header.Set("Accept-Encoding", encoding)
			response, err := client.Do(request)
			if err != nil {
				b.Error(err)
				return
			}
			read, err := io.Copy(io.Discard, response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				b.Errorf("%s: %v", response.Status, err)
				return
			}
			took = append(took, time.Since(began))
			mutex.Lock()
			size = read
			mutex.Unlock()
		}
		mutex.Lock()
		defer mutex.Unlock()
		all = append(all, took...)
	})
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(size), "bytes")
}

func BenchmarkPorts(b *testing.B) { benchmark(b, "/api/v1/ports", "identity") }
func BenchmarkPortsOfOne(b *testing.B) {
	benchmark(b, "/api/v1/ports?container=shop_web_7", "identity")
}
func BenchmarkPortsGzip(b *testing.B)     { benchmark(b, "/api/v1/ports", "gzip") }
func BenchmarkMetrics(b *testing.B)       { benchmark(b, "/metrics", "identity") }
func BenchmarkMetricsGzip(b *testing.B)   { benchmark(b, "/metrics", "gzip") }
func BenchmarkContainerList(b *testing.B) { benchmark(b, "/api/v1/containers", "identity") }

// BenchmarkAnswer is what the server alone pays for an answer with 3,000 open
// ports: for a view that others asked for already, and for another one.
func BenchmarkAnswer(b *testing.B) {
	for _, path := range []string{"/api/v1/ports", "/api/v1/ports?protocol=tcp", "/metrics", "/api/v1/containers"} {
		for _, encoding := range []string{"identity", "gzip"} {
			for _, changes := range []bool{false, true} {
				name := path + ", " + encoding
				if changes {
					name += ", another view each"
				}
				b.Run(name, func(b *testing.B) { benchmarkAnswer(b, path, encoding, changes) })
			}
		}
	}
}

func benchmarkAnswer(b *testing.B, path, encoding string, changes bool) {
	s := start(b, nil)
	s.capture.set(func(c *fakeCapture) { c.open = manyPorts(3000) })
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Host = "localhost"
	request.Header.Set("Accept-Encoding", encoding)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if changes {
			s.capture.set(func(c *fakeCapture) {})
		}
		w := discarded{header: http.Header{}}
		if s.handler.ServeHTTP(&w, request); w.status != 0 {
			b.Fatal(w.status)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N)/1e6, "cpu-ms/op")
}

// discarded is an answer that nobody reads.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header               { return d.header }
func (d *discarded) Write(content []byte) (int, error) { return len(content), nil }
func (d *discarded) WriteHeader(status int)            { d.status = status }

// cpuTime is the time that this process has had of the cores.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkEventWithoutReaders is what the capture pays for each event.
func BenchmarkEventWithoutReaders(b *testing.B) {
	s := start(b, nil)
	e := event(model.Opened, openPort(web, model.TCP, "0.0.0.0", 80, model.Published))
	b.ReportAllocs()
	for b.Loop() {
		s.Event(e)
	}
}
