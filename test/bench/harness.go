package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// fullPairs is how many interleaved pairs a ratio is the median of, quickPairs
// how many in quick mode, which judges nothing.
const (
	fullPairs  = 5
	quickPairs = 2
)

// bench is what one area's benchmarks are given, and where their rows go.
type bench struct {
	quick   bool
	objects int
	dir     string
	// skiff is the program under test.
	skiff    string
	progress io.Writer
	area     string
	rows     []row
	// notes are sentences below the table: what was left out, and why.
	notes []string
}

// row is one line of the report.
type row struct {
	area, name string
	// ours and peer are medians, with their unit; peer is empty for a figure
	// that stands for itself.
	ours, peer string
	// peerName says what peer is ("bbolt Batch", "at 1,000 objects").
	peerName string
	// ratio and spread are of ours over peer; spread is from the least to the
	// greatest of the pairs, or of ours where there is no peer.
	ratio, spread string
	// bar is what is wanted, empty for a figure that is only shown; met says
	// whether it was reached.
	bar string
	met bool
}

// unit says how a figure is written and whether more is better.
type unit struct {
	suffix string
	format string
}

// Units of figures.
func perSecond() unit    { return unit{suffix: "/s", format: "%.0f"} }
func seconds() unit      { return unit{suffix: " s", format: "%.2f"} }
func milliseconds() unit { return unit{suffix: " ms", format: "%.2f"} }
func microseconds() unit { return unit{suffix: " µs", format: "%.0f"} }
func megabytes() unit    { return unit{suffix: " MB", format: "%.1f"} }

func (u unit) text(v float64) string {
	s := fmt.Sprintf(u.format, v)
	if whole, _, _ := strings.Cut(s, "."); len(whole) > 4 && len(whole) == len(s) {
		s = thousands(s)
	}
	return s + u.suffix
}

func thousands(digits string) string {
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// bar is a limit.
type bar struct {
	text  string
	holds func(v float64) bool
}

func noBar() bar { return bar{} }

func atLeast(limit float64, u unit) bar {
	return bar{text: "≥ " + u.text(limit), holds: func(v float64) bool { return v >= limit }}
}

func atMost(limit float64, u unit) bar {
	return bar{text: "≤ " + u.text(limit), holds: func(v float64) bool { return v <= limit }}
}

func ratioAtMost(limit float64) bar {
	return bar{text: fmt.Sprintf("≤ %g×", limit), holds: func(v float64) bool { return v <= limit }}
}

func ratioAtLeast(limit float64) bar {
	return bar{text: fmt.Sprintf("≥ %g×", limit), holds: func(v float64) bool { return v >= limit }}
}

// measure is one side of a pair: it returns one figure.
type measure func(ctx context.Context) (float64, error)

// say tells whoever watches what is going on.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, "%s: %s\n", b.area, fmt.Sprintf(format, args...))
}

// note tells the reader of the report something that no row can.
func (b *bench) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.notes = append(b.notes, text)
	b.say("%s", text)
}

// pairs is how often everything is measured.
func (b *bench) pairs() int { return b.size(fullPairs, quickPairs) }

// size is full, or small in quick mode.
func (b *bench) size(full, small int) int {
	if b.quick {
		return small
	}
	return full
}

// span is how long one side of a pair is measured.
func (b *bench) span(full, small time.Duration) time.Duration {
	if b.quick {
		return small
	}
	return full
}

// alone adds a row for a figure that stands for itself, measured as often as
// pairs are.
func (b *bench) alone(ctx context.Context, name string, u unit, limit bar, ours measure) error {
	var values []float64
	for range b.pairs() {
		v, err := ours(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		values = append(values, v)
	}
	b.figure(name, u, limit, values)
	return nil
}

// figure adds a row for values that were measured elsewhere.
func (b *bench) figure(name string, u unit, limit bar, values []float64) {
	m := median(values)
	b.add(row{
		name: name, ours: u.text(m),
		spread: u.text(slices.Min(values)) + " – " + u.text(slices.Max(values)),
		bar:    limit.text, met: limit.holds == nil || limit.holds(m),
	})
}

// compare adds a row for ours beside peer, measured in turns; the limit is on
// the ratio of the two.
func (b *bench) compare(ctx context.Context, name, peerName string, u unit, limit bar, ours, peer measure) error {
	var mine, others []float64
	for i := range b.pairs() {
		first, second := ours, peer
		if i%2 == 1 { // whoever goes first has the colder machine
			first, second = peer, ours
		}
		v, err := first(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w, err := second(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i%2 == 1 {
			v, w = w, v
		}
		mine, others = append(mine, v), append(others, w)
	}
	b.pair(name, peerName, u, limit, mine, others)
	return nil
}

// pair adds a row for pairs that were measured elsewhere.
func (b *bench) pair(name, peerName string, u unit, limit bar, mine, others []float64) {
	ratios := make([]float64, len(mine))
	for i := range mine {
		ratios[i] = mine[i] / others[i]
	}
	m := median(ratios)
	b.add(row{
		name: name, ours: u.text(median(mine)), peer: u.text(median(others)), peerName: peerName,
		ratio: fmt.Sprintf("%.2f×", m), spread: fmt.Sprintf("%.2f× – %.2f×", slices.Min(ratios), slices.Max(ratios)),
		bar: limit.text, met: limit.holds == nil || limit.holds(m),
	})
}

func (b *bench) add(r row) {
	r.area = b.area
	b.rows = append(b.rows, r)
	b.say("%s: %s %s %s (%s) bar %s", r.name, r.ours, r.peer, r.ratio, r.spread, r.bar)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// percentile is of durations, in milliseconds; it sorts them.
func percentile(durations []time.Duration, p float64) float64 {
	if len(durations) == 0 {
		return math.NaN()
	}
	slices.Sort(durations)
	i := min(len(durations)-1, int(math.Ceil(p/100*float64(len(durations))))-1)
	return float64(durations[max(i, 0)]) / float64(time.Millisecond)
}
