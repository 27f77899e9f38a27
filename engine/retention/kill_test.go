package retention_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
)

// purgeChild names the folder to a test binary that is its own child.
const purgeChild = "SKIFF_RETENTION_TEST_DIR"

// fatal ends a child whose world does not work.
type fatal struct{}

func (fatal) Helper() {}
func (fatal) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// purgeForever bounds the bytes more and more tightly, one artifact each time.
func purgeForever(dir string) int {
	w := openWorld(fatal{}, dir)
	w.clock = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	c := w.controller()
	if err := c.Finish(context.Background()); err != nil {
		w.t.Fatalf("finish: %v", err)
	}
	for {
		total := int64(0)
		for _, a := range w.all() {
			if a.Gone() == "" && !a.Spec.Imported {
				total += a.Status.Size
			}
		}
		if total <= 1 {
			return 0
		}
		if _, err := c.Purge(context.Background(), space, skiff.Retention{MaxBytes: total - 1}, false); err != nil {
			w.t.Fatalf("purge: %v", err)
		}
		fmt.Println(total)
	}
}

// killPurging has a process purge a world, and kills it when it is at it, when
// moment returns.
func killPurging(t *testing.T, dir string, round int, moment func()) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), purgeChild+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if lines := bufio.NewScanner(out); !lines.Scan() {
		t.Fatalf("round %d: the child purges nothing", round)
	}
	moment()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestKilled kills a purging process at random moments: what is kept is whole
// each time, nothing that is needed went, and the next one leaves nothing behind.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir)
	var pinned []string
	for i := range 150 {
		_, made := w.run(skiff.StateSucceeded, 10+i)
		if i%30 == 7 {
			w.amend(made[0], func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} })
			pinned = append(pinned, made[0])
		}
		w.clock = w.clock.Add(time.Hour)
	}
	texts := w.texts
	for round := range 8 {
		w.close()
		killPurging(t, dir, round, func() { time.Sleep(time.Duration(3*round) * time.Millisecond) })
		w = openWorld(t, dir)
		w.texts = texts
		kept, gone := 0, 0
		for _, a := range w.all() {
			switch there := w.there(a.Spec.URI); {
			case a.Gone() == "" && !there:
				t.Fatalf("round %d: %s is kept and its contents are gone", round, a.Name)
			case a.Gone() != "" && !a.Status.Purged.RemovedAt.IsZero() && there:
				t.Fatalf("round %d: %s is settled and its contents are there", round, a.Name)
			case a.Gone() == "":
				kept++
			default:
				gone++
			}
		}
		if gone == 0 || kept == 0 {
			t.Fatalf("round %d: %d kept, %d gone; it proves nothing", round, kept, gone)
		}
	}
	if err := w.controller().Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.pending(); n > 0 {
		t.Errorf("%d artifacts are still to be settled", n)
	}
	for _, name := range pinned {
		if a := w.get(name); a.Gone() != "" {
			t.Errorf("%s is pinned: %s", name, a.Gone())
		}
	}
	w.close()
}
