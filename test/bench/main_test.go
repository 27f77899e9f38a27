package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// program is the skiff under test: the one that SKIFF_TEST_BINARY names, or this
// tree's, built once for the package.
var program = sync.OnceValues(func() (string, error) {
	if named := os.Getenv("SKIFF_TEST_BINARY"); named != "" {
		return filepath.Abs(named)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	build := exec.Command("make", "--no-print-directory", "build")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin", "skiff"), nil
})

// TestQuick runs the benchmarks with small sizes: they work and their rows are
// there. No timing is judged. An area without what it needs says so in one line.
func TestQuick(t *testing.T) {
	skiff, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		area string
		rows []string
		// optional areas may be left out, which they then say.
		optional bool
	}{
		{"store", []string{
			"new objects", "updates within 1,000 active objects", "random updates over all objects", "5 ms sync", "p99",
			"list page of 50", "bbolt Batch", "boot check", "full check",
		}, false},
		{"process", []string{"a step of a chain of 25, durable", "fork and exec with the launcher", "fork and exec)", "Runtime: process"}, false},
		{"docker", []string{"a step of a chain of 2 ", "removed too", "through the runtime alone"}, true},
		{"peers", []string{"one component on process", "SubprocessRunner"}, true},
		{"daemon", []string{
			"program, stripped", "ready on an empty state", "ready on 2,000 objects", "after kill -9", "idle memory on an empty state",
		}, false},
		{"schedules", []string{"run made, of 10 due at once, p95", "handed in at once", "step begun beyond what handing in takes"}, false},
		{"portable", []string{"export of one file of 8 MiB, .tar.gz", "import of one file", "a folder of 10 files", "cp and sync"}, false},
	} {
		t.Run(one.area, func(t *testing.T) {
			output := filepath.Join(t.TempDir(), "benchmarks.md")
			var stdout, stderr bytes.Buffer
			if err := run(t.Context(), []string{"-quick", "-only", one.area, "-skiff", skiff, "-o", output, "-dir", t.TempDir()}, &stdout, &stderr); err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			data, err := os.ReadFile(output)
			if err != nil {
				t.Fatal(err)
			}
			if one.optional && strings.Contains(string(data), "\nLeft out: ") {
				t.Logf("left out here:\n%s", data)
				one.rows = nil
			}
			for _, row := range one.rows {
				if !strings.Contains(string(data), row) {
					t.Errorf("the report has no %q", row)
				}
			}
			if string(data) != stdout.String() {
				t.Error("what was printed is not what was written")
			}
		})
	}
}

func TestChoose(t *testing.T) {
	if _, err := choose("store,none"); err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("an unknown area: %v", err)
	}
	all, err := choose("")
	if err != nil || len(all) != len(areas()) {
		t.Errorf("all areas: %d, %v", len(all), err)
	}
}

func TestFigures(t *testing.T) {
	if m := median([]float64{9, 1, 5}); m != 5 {
		t.Errorf("median of three is %v", m)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of four is %v", m)
	}
	if s := perSecond().text(1234567); s != "1,234,567/s" {
		t.Errorf("a large figure is written %q", s)
	}
}

// TestBrokenArea shows that an area's failure is in the report, beside what it
// had measured, and that its folder is gone.
func TestBrokenArea(t *testing.T) {
	b := &bench{dir: filepath.Join(t.TempDir(), "broken"), progress: t.Output(), area: "broken"}
	wrong := errors.New("it broke")
	a := area{name: "broken", about: "Nothing.", run: func(_ context.Context, b *bench) error {
		b.figure("first", milliseconds(), noBar(), []float64{1})
		return wrong
	}}
	err := b.measure(t.Context(), a)
	if !errors.Is(err, wrong) {
		t.Fatalf("the failure is lost: %v", err)
	}
	b.note("**Broke off: %v**", err)
	if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder stays: %v", err)
	}
	var text strings.Builder
	section{area: a, rows: b.rows, notes: b.notes}.markdown(&text)
	for _, want := range []string{"| first | 1.00 ms |", "**Broke off: it broke**"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &text)
		}
	}
}
