// Command bench measures skiff against floors and peers in the same run and
// writes docs/benchmarks.md.
//
//	go run ./test/bench [-only store,daemon] [-quick] [-o docs/benchmarks.md]
//
// The daemon that it measures is bin/skiff, which `make build` makes. Every ratio is the median of interleaved pairs with its spread. Timings are
// printed, never asserted: a slow machine is not a failed test. Each area of
// skiff is one file that adds an entry to areas.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// area is a part of skiff with its benchmarks.
type area struct {
	name string
	// about is a sentence for the report on what is measured and how.
	about string
	run   func(ctx context.Context, b *bench) error
}

// areas are all areas, in the report's order.
func areas() []area {
	return []area{
		{"store", storeAbout, runStore},
		{"process", processAbout, runProcess},
		{"docker", dockerAbout, runDocker},
		{"peers", peersAbout, runPeers},
		{"daemon", daemonAbout, runDaemon},
		{"schedules", schedulesAbout, runSchedules},
		{"portable", portableAbout, runPortable},
		{"kfp", kfpAbout, runKFP},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "comma-separated areas to run; all where empty")
	quick := flags.Bool("quick", false, "small sizes: shows that the benchmarks run, not how fast skiff is")
	output := flags.String("o", "", "write the report to this file too (docs/benchmarks.md)")
	objects := flags.Int("objects", 1_000_000, "how many objects the large store holds")
	profile := flags.String("profile", "", "write a CPU profile of the whole run to this file")
	program := flags.String("skiff", "bin/skiff", "the program under test")
	folder := flags.String("dir", "", "folder for the data, on the disk to measure; a temporary one where empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if *profile != "" {
		stop, err := startProfile(*profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	dir, err := os.MkdirTemp(*folder, "skiff-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	skiff, err := filepath.Abs(*program)
	if err != nil {
		return fmt.Errorf("find the program under test: %w", err)
	}
	r := newReport(ctx, *quick)
	var failed error
	for _, a := range chosen {
		b := &bench{quick: *quick, objects: *objects, dir: filepath.Join(dir, a.name), skiff: skiff, progress: stderr, area: a.name}
		if err := b.measure(ctx, a); err != nil {
			// The other areas' figures are worth having all the same.
			b.note("**Broke off: %v**", err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a.name, err))
		}
		r.add(a, b)
		if ctx.Err() != nil {
			return failed
		}
	}
	r.end()
	text := r.markdown()
	if _, err := io.WriteString(stdout, text); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if *output != "" {
		if err := os.WriteFile(*output, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return failed
}

// measure runs an area in a folder of its own, which is gone afterwards: what
// one area leaves in the page cache and on the disk is not the next one's.
func (b *bench) measure(ctx context.Context, a area) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	begin, before := time.Now(), load()
	err := a.run(ctx, b)
	// Its own work is in the second figure, somebody else's may be in both.
	b.note("Measured in %.0f s; load average before %s, after %s.", time.Since(begin).Seconds(), before, load())
	return errors.Join(err, os.RemoveAll(b.dir))
}

// choose picks the areas named, in the report's order.
func choose(only string) ([]area, error) {
	all := areas()
	if only == "" {
		return all, nil
	}
	var chosen []area
	var names []string
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(only, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	for _, a := range all {
		names = append(names, a.name)
		if wanted[a.name] {
			chosen = append(chosen, a)
			delete(wanted, a.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("there is no area %q; there are %s", name, strings.Join(names, ", "))
	}
	return chosen, nil
}

// startProfile begins a CPU profile and returns what ends it.
func startProfile(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
