package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestDaemonKilledAtRandom kills the daemon again and again while pipelines
// run: each must end as if nothing had happened, no step done twice.
func TestDaemonKilledAtRandom(t *testing.T) {
	killAtRandom(t, 20, "--runtime", "process")
}

// ledgerDone is what the pipeline gives back when each of its steps ran once.
const ledgerDone = "a b c d e f "

func killAtRandom(t *testing.T, kills int, flags ...string) *daemon {
	if testing.Short() {
		t.Skip("kills a daemon for a minute")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := newDaemon(t, flags...)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()

	for killed := 0; killed < kills; {
		id := d.submit(ctx, "testdata/ledger.yaml")
		// Some kills fall into the run, some between runs: both happen.
		for range 1 + random.IntN(4) {
			time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
			d.kill()
			killed++
			d.start()
		}
		doc := d.finished(ctx, id)
		if doc.State != "SUCCEEDED" || doc.Outputs["Output"] != ledgerDone {
			t.Fatalf("after %d kills run %s ended %s with %v; want SUCCEEDED with %q\n%s", killed, id, doc.State, doc.Outputs, ledgerDone, tasksText(doc))
		}
	}
	d.nothingLeft(ctx)
	return d
}

// cleanUp is how long what is done behind the steps' backs may take.
const cleanUp = 30 * time.Second

// submit hands a pipeline in and returns its run's id.
func (d *daemon) submit(ctx context.Context, args ...string) string {
	d.t.Helper()
	submitted := d.skiff(ctx, append([]string{"run", "--detach", "-o", "json"}, args...)...)
	var accepted struct {
		RunID string `json:"run_id"`
	}
	if err := json.Unmarshal([]byte(submitted.stdout), &accepted); err != nil || submitted.code != 0 || accepted.RunID == "" {
		d.t.Fatalf("submit: exit %d, printed %q: %v\n%s", submitted.code, submitted.stdout, err, submitted.stderr)
	}
	return accepted.RunID
}

// finished waits for a run's end and returns its document.
func (d *daemon) finished(ctx context.Context, id string) runDocument {
	d.t.Helper()
	var doc runDocument
	eventually(d.t, 3*time.Minute, "run "+id+" ends", func() error {
		got := d.skiff(ctx, "get", "runs", id, "-o", "json")
		if got.code != 0 {
			return fmt.Errorf("get runs: exit %d: %s", got.code, got.stderr)
		}
		doc = document(d.t, got)
		switch doc.State {
		case "SUCCEEDED", "FAILED", "CANCELED":
			return nil
		}
		return fmt.Errorf("it is %s", doc.State)
	})
	return doc
}

// nothingLeft waits until no pod of any run is alive.
func (d *daemon) nothingLeft(ctx context.Context) {
	d.t.Helper()
	eventually(d.t, cleanUp, "no pod is left running", func() error {
		got := d.skiff(ctx, "ps", "-o", "json")
		if got.code != 0 {
			return fmt.Errorf("ps: exit %d: %s", got.code, got.stderr)
		}
		var left struct {
			Items []json.RawMessage `json:"items"`
		}
		if err := json.Unmarshal([]byte(got.stdout), &left); err != nil {
			return fmt.Errorf("ps printed %q: %w", got.stdout, err)
		}
		if len(left.Items) > 0 {
			return fmt.Errorf("%d pods are", len(left.Items))
		}
		return nil
	})
}

func tasksText(doc runDocument) string {
	var b strings.Builder
	for _, task := range doc.Tasks {
		fmt.Fprintf(&b, "  %-40s %-10s attempts %d %s\n", task.Name, task.State, task.Attempts, task.Message)
	}
	return b.String()
}
