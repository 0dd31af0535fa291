package probe

import (
	"fmt"
	"math"
	"os"
)

// Configure sets how many events one cgroup may have in a second before its openings
// are counted instead (0: as many as there is room for), and whether UDP sockets that
// bind to port 0 are included. A socket that was opened before closes the way it was
// opened; the close of one that was left out is an event if udpClients is true by then.
// After Close it returns os.ErrClosed.
func (p *Probe) Configure(burstLimit int, udpClients bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	return p.set(burstLimit, udpClients)
}

func (p *Probe) set(burstLimit int, udpClients bool) error {
	if burstLimit < 0 || burstLimit > math.MaxInt32 {
		return fmt.Errorf("burst limit %d: want 0 (none) to %d events a second", burstLimit, math.MaxInt32)
	}
	values := map[string]uint32{"burst_limit": uint32(burstLimit), "skip_udp_auto": 1}
	if udpClients {
		values["skip_udp_auto"] = 0
	}
	for name, value := range values {
		if err := p.objects.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set the eBPF variable %q: %w", name, err)
		}
	}
	return nil
}

// Stats returns the numbers since Open, from memory that is shared with the programs.
// After Close it returns the last result.
func (p *Probe) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		// It fails only for a wrong type, which the tests would show.
		if err := p.objects.Variables["stats"].Get(&p.stats); err != nil {
			panic(fmt.Sprintf("read the eBPF variable stats: %v", err))
		}
		p.stats.Lost += p.leftOut
	}
	return p.stats
}
