package probe

import (
	"cmp"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf"
)

// setVariables gives the programs' variables their first values.
func setVariables(spec *ebpf.CollectionSpec, options Options) error {
	burstLimit, skip, err := settings(options.BurstLimit, options.UDPClients)
	if err != nil {
		return err
	}
	for name, value := range map[string]uint32{
		socketsVarBudget:     uint32(cmp.Or(options.budget, defaultBudget)),
		socketsVarBurstLimit: burstLimit, socketsVarSkipUdpAuto: skip,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set the eBPF variable %q: %w", name, err)
		}
	}
	return nil
}

// settings returns the values of burst_limit and skip_udp_auto.
func settings(burstLimit int, udpClients bool) (limit, skip uint32, err error) {
	if burstLimit < 0 || burstLimit > math.MaxInt32 {
		return 0, 0, fmt.Errorf("burst limit %d: want 0 (none) to %d events a second", burstLimit, math.MaxInt32)
	}
	if !udpClients {
		skip = 1
	}
	return uint32(burstLimit), skip, nil
}

// Configure sets how many events one cgroup may have in a second before its openings
// are counted instead (0: as many as there is room for), and whether UDP sockets that
// bind to port 0 are included. A socket that was opened before closes the way it was
// opened; the close of one that was left out is an event if udpClients is true by then.
// After Close it returns os.ErrClosed.
func (p *Probe) Configure(burstLimit int, udpClients bool) error {
	limit, skip, err := settings(burstLimit, udpClients)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	for name, value := range map[string]uint32{socketsVarBurstLimit: limit, socketsVarSkipUdpAuto: skip} {
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
		if err := p.objects.Variables[socketsVarStats].Get(&p.stats); err != nil {
			panic(fmt.Sprintf("read the eBPF variable %q: %v", socketsVarStats, err))
		}
		p.stats.Lost += p.leftOut
	}
	return p.stats
}
