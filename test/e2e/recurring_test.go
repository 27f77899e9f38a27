package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
)

// TestSchedulesKilledAtRandom kills the daemon again and again while recurring
// runs are due by the second: every time on a schedule must have its run in the
// end, and one only, and what was asked of one schedule must not touch another.
func TestSchedulesKilledAtRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a daemon for some seconds")
	}
	const schedules, kills, interval = 8, 6, 1
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := newDaemon(t, "--runtime", "process")
	ctx := t.Context()
	var names []string
	for i := range schedules {
		name := fmt.Sprintf("s%d", i)
		made := d.skiff(ctx, "schedule", "testdata/nothing.yaml", "--every", fmt.Sprint(interval, "s"), "--max-concurrency", "10",
			"--name", name, "-p", "at=[[ScheduledTime]]")
		if made.code != 0 {
			t.Fatalf("schedule: exit %d: %s", made.code, made.stderr)
		}
		names = append(names, name)
	}
	for range kills {
		// Some fall on the second at which all are due, some between.
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		d.kill()
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		d.start()
	}
	eventually(t, time.Minute, "what was missed is made up for", func() error {
		for _, r := range objects[skiff.RecurringRun](d, "recurringruns") {
			if behind := time.Since(r.Next()); behind > interval*time.Second {
				return fmt.Errorf("%s is %s behind", r.Spec.DisplayName, behind)
			}
		}
		return nil
	})
	if off := d.skiff(ctx, append([]string{"disable"}, names...)...); off.code != 0 {
		t.Fatalf("disable: exit %d: %s", off.code, off.stderr)
	}
	recurring := objects[skiff.RecurringRun](d, "recurringruns")
	if len(recurring) != schedules {
		t.Fatalf("there are %d recurring runs, want %d", len(recurring), schedules)
	}
	made := map[string]map[int64]int{}
	eventually(t, time.Minute, "all runs have ended", func() error {
		clear(made)
		for _, run := range objects[skiff.Run](d, "runs") {
			if run.Status.State != skiff.StateSucceeded {
				return fmt.Errorf("run %s is %s: %s", run.Name, run.Status.State, run.Status.Message)
			}
			of := run.Spec.RecurringRun
			if made[of] == nil {
				made[of] = map[int64]int{}
			}
			made[of][run.Spec.ScheduledAt.Unix()]++
			if at := `"` + run.Spec.ScheduledAt.Format("20060102150405") + `"`; string(run.Spec.Parameters["at"]) != at {
				t.Fatalf("run %s is for %s and has %s", run.Name, at, run.Spec.Parameters["at"])
			}
		}
		return nil
	})
	total := 0
	for _, r := range recurring {
		times := made[r.Name]
		due := 0
		for at := r.CreationTimestamp.Unix() + interval; at <= r.Status.SettledUntil.Unix(); at += interval {
			due++
			if times[at] != 1 {
				t.Errorf("%s has %d runs for %s", r.Spec.DisplayName, times[at], time.Unix(at, 0).UTC())
			}
		}
		if len(times) != due || r.Status.Runs != int64(due) || r.Status.Message != "" {
			t.Errorf("%s has %d runs and counts %d, want %d; its message is %q", r.Spec.DisplayName, len(times), r.Status.Runs, due, r.Status.Message)
		}
		total += due
	}
	if total < schedules*2 {
		t.Errorf("%d runs were due; this proves nothing", total)
	}
	t.Logf("%d runs of %d schedules over %d kills", total, schedules, kills)
	d.nothingLeft(ctx)
}

// objects reads all objects of a kind of skiff's own.
func objects[T any](d *daemon, plural string) []T {
	d.t.Helper()
	token, err := os.ReadFile(filepath.Join(d.state, "admin.token"))
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://"+d.addr+"/apis/skiff.dev/v1alpha1/namespaces/default/"+plural+"?limit=1000", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		d.t.Fatalf("list %s: %s, %v: %.500s", plural, res.Status, err, body)
	}
	var list struct {
		Items []T `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		d.t.Fatalf("list %s: %v", plural, err)
	}
	return list.Items
}
