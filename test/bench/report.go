package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// report is the document.
type report struct {
	quick      bool
	started    time.Time
	machine    []string
	loadBefore string
	loadAfter  string
	sections   []section
}

type section struct {
	area  area
	rows  []row
	notes []string
}

func newReport(ctx context.Context, quick bool) *report {
	return &report{quick: quick, started: time.Now(), machine: machine(ctx), loadBefore: load()}
}

func (r *report) add(a area, b *bench) {
	r.sections = append(r.sections, section{area: a, rows: b.rows, notes: b.notes})
}

func (r *report) end() { r.loadAfter = load() }

// markdown renders the whole document.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`; do not edit.\n\n")
	if r.quick {
		b.WriteString("**Quick run with small sizes: it shows that the benchmarks work, not how fast skiff is.**\n\n")
	}
	fmt.Fprintf(&b, "- %s, %d minutes\n", r.started.UTC().Format("2 January 2006, 15:04 UTC"), int(time.Since(r.started).Minutes()))
	for _, line := range r.machine {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	fmt.Fprintf(&b, "- load average before %s, after %s\n", r.loadBefore, r.loadAfter)
	rounds := fullPairs
	if r.quick {
		rounds = quickPairs
	}
	fmt.Fprintf(&b, "- every figure is the median of %d rounds, every ratio the median of %d interleaved pairs, and the spread goes from the least to the greatest\n", rounds, rounds)
	for _, s := range r.sections {
		s.markdown(&b)
	}
	return b.String()
}

func (s section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", s.area.name, s.area.about)
	if len(s.rows) > 0 {
		b.WriteString("\n| what | skiff | beside | ratio | spread | bar | met |\n|---|---|---|---|---|---|---|\n")
	}
	for _, row := range s.rows {
		beside := row.peer
		if row.peerName != "" {
			beside += " (" + row.peerName + ")"
		}
		met := ""
		if row.bar != "" {
			met = map[bool]string{true: "yes", false: "**no**"}[row.met]
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", row.name, row.ours, beside, row.ratio, row.spread, row.bar, met)
	}
	for _, note := range s.notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
}

// machine describes what the figures were measured on, as far as it can be told.
func machine(ctx context.Context) []string {
	lines := []string{fmt.Sprintf("%d CPUs (%s), %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"))}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		lines = append(lines, "Linux "+strings.TrimSpace(string(kernel))+", "+runtime.Version())
	}
	// An engine that hangs is not waited for.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Output(); err == nil {
		lines = append(lines, "Docker "+strings.TrimSpace(string(out)))
	}
	return lines
}

// field is the value of the first line of a /proc file that begins with name.
func field(file, name string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(data))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
