package netif

import (
	"testing"

	"portwatcher/internal/testutil/kernel"
)

// A container is read two times when it starts.
func BenchmarkRead(b *testing.B) {
	n := kernel.NewNamespace(b)
	n.Do(b, func() error {
		return kernel.IP("link add eth0 type veth peer name other", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up")
	})
	for b.Loop() {
		if _, err := Read(n.FD()); err != nil {
			b.Fatal(err)
		}
	}
}
