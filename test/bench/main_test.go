package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuick runs the benchmarks with small sizes: they work and their rows are
// there. No timing is judged.
func TestQuick(t *testing.T) {
	for _, one := range []struct {
		area string
		rows []string
	}{
		{"store", []string{
			"new objects", "updates within 1,000 active objects", "random updates over all objects", "5 ms sync", "p99",
			"list page of 50", "bbolt Batch", "boot check", "full check",
		}},
	} {
		t.Run(one.area, func(t *testing.T) {
			output := filepath.Join(t.TempDir(), "benchmarks.md")
			var stdout, stderr bytes.Buffer
			if err := run(t.Context(), []string{"-quick", "-only", one.area, "-o", output, "-dir", t.TempDir()}, &stdout, &stderr); err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			data, err := os.ReadFile(output)
			if err != nil {
				t.Fatal(err)
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
