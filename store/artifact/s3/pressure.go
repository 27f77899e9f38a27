package s3

import (
	"context"
	"fmt"
	"time"
)

const (
	// ordinaryReserve is where images and artifacts of ordinary pipelines no longer
	// fit; of a small disk it would be most.
	ordinaryReserve = 5 << 30
	smallDiskShare  = 20
	// pressureInterval is how often the disk is looked at that others fill, too.
	pressureInterval = time.Minute
)

// Reserve is how many bytes are to stay free on a disk of a size, where nobody says
// otherwise.
func Reserve(total int64) int64 { return min(ordinaryReserve, total/smallDiskShare) }

// Pressure is how full the disk is that the artifacts are on, in bytes.
type Pressure struct {
	Free, Reserve int64
	// Copies are what is here although a bucket has it, too, in use or not.
	Copies int64
}

// Low reports whether the disk is nearly full.
func (p Pressure) Low() bool { return p.Free < p.Reserve }

// Pressure looks at the disk.
func (m *Mirror) Pressure() (Pressure, error) {
	free, total, err := m.Disk()
	p := Pressure{Free: free, Reserve: m.cfg.Reserve, Copies: m.records.total()}
	if p.Reserve <= 0 {
		p.Reserve = Reserve(total)
	}
	return p, err
}

// Relieve removes copies of what a bucket has as well, least recently used first,
// while the disk is nearly full, and says how many bytes went. What steps have
// before them stays, and what only this machine has.
func (m *Mirror) Relieve(ctx context.Context) (int64, error) {
	p, err := m.Pressure()
	if err != nil || !p.Low() || p.Copies == 0 {
		return 0, err
	}
	if err := m.trim(ctx, max(0, p.Copies-(p.Reserve-p.Free))); err != nil {
		return 0, fmt.Errorf("make room on the disk: %w", err)
	}
	went := p.Copies - m.records.total()
	if went > 0 {
		m.log.Info("the disk is nearly full: copies of artifacts went that buckets have, too", "free", p.Free, "reserve", p.Reserve, "removed", went)
	}
	return went, nil
}

// Run looks at the disk now and then, until ctx ends.
func (m *Mirror) Run(ctx context.Context) error {
	ticker := time.NewTicker(pressureInterval)
	defer ticker.Stop()
	for {
		m.tidy(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
