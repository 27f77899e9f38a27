package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// TestRecurringRunEdited: what is changed while a schedule runs. A new schedule
// counts from the change on, whatever else is changed leaves the times alone, and
// what was wrong is not said any more.
func TestRecurringRunEdited(t *testing.T) {
	const path = "/apis/v2beta1/recurringruns/r"
	settled := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, body string
		// resets says that the times count anew.
		resets bool
		want   string // a part of the answer
	}{
		{"interval", `{"trigger":{"periodic_schedule":{"interval_second":"7200"}}}`, true, `"7200"`},
		{"cron", `{"trigger":{"cron_schedule":{"cron":"0 0 2 * * *"}}}`, true, `"0 0 2 * * *"`},
		{"start", `{"trigger":{"periodic_schedule":{"interval_second":"3600","start_time":"2025-01-01T00:00:00Z"}}}`, true, `"2025-01-01T00:00:00Z"`},
		{"the same schedule", `{"trigger":{"periodic_schedule":{"interval_second":"3600"}}}`, false, `"3600"`},
		{"parameters", `{"runtime_config":{"parameters":{"day":"[[ScheduledTime]]"}}}`, false, `[[ScheduledTime]]`},
		{"bound", `{"max_concurrency":"4","no_catchup":true}`, false, `"max_concurrency":"4"`},
		{"mode", `{"mode":"DISABLE"}`, false, `"DISABLED"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			begin := time.Now()
			f.keep(t, "pipelinemanifests.skiff.dev", &skiff.PipelineManifest{ObjectMeta: core.ObjectMeta{Name: "m", Namespace: "default"}, PipelineSpec: json.RawMessage(`{"pipelineInfo":{"name":"p"}}`)})
			f.keep(t, "experiments.skiff.dev", skiff.NewDefaultExperiment("default"))
			f.keep(t, "recurringruns.skiff.dev", &skiff.RecurringRun{ObjectMeta: core.ObjectMeta{Name: "r", Namespace: "default"},
				Spec: skiff.RecurringRunSpec{DisplayName: "nightly", Experiment: skiff.DefaultExperiment("default"), Manifest: "m", MaxConcurrency: 1,
					Schedule: skiff.Schedule{IntervalSeconds: 3600}},
				Status: skiff.RecurringRunStatus{SettledUntil: settled, Runs: 3, Message: "the pipeline is gone"}})
			w := f.do(http.MethodPatch, path, strings.NewReader(c.body), both(bearer(token), header("Content-Type", "application/json")))
			if answer := strings.ReplaceAll(w.Body.String(), ": ", ":"); w.Code != http.StatusOK || !strings.Contains(answer, c.want) || strings.Contains(answer, "is gone") {
				t.Fatalf("got %d: %s", w.Code, w.Body)
			}
			got, err := store.GetAs[*skiff.RecurringRun](t.Context(), f.store, store.Key{Kind: "recurringruns.skiff.dev", Namespace: "default", Name: "r"})
			if err != nil {
				t.Fatal(err)
			}
			if reset := !got.Status.SettledUntil.Before(begin); reset != c.resets || !reset && !got.Status.SettledUntil.Equal(settled) || got.Status.Runs != 3 {
				t.Errorf("status: %+v", got.Status)
			}
			if got.Spec.DisplayName != "nightly" || got.Spec.Manifest != "m" {
				t.Errorf("what was not named has changed: %+v", got.Spec)
			}
		})
	}
}

func TestRecurringRunTriggered(t *testing.T) {
	f := newFixture(t)
	f.keep(t, "recurringruns.skiff.dev", &skiff.RecurringRun{ObjectMeta: core.ObjectMeta{Name: "r", Namespace: "default"}, Spec: skiff.RecurringRunSpec{DisplayName: "nightly"}})
	for _, c := range []struct {
		name, action string
		code         int
		want         string
	}{
		{"at once", "r:trigger", http.StatusOK, `"recurring_run_id": "r"`},
		{"none of that name", "none:trigger", http.StatusNotFound, "recurring run none not found"},
		{"no such action", "r:fire", http.StatusNotFound, `no action`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := f.do(http.MethodPost, "/apis/v2beta1/recurringruns/"+c.action, nil, both(bearer(token), header("Content-Type", "application/json")))
			if w.Code != c.code || !strings.Contains(strings.ReplaceAll(w.Body.String(), `":"`, `": "`), c.want) {
				t.Errorf("got %d: %s", w.Code, w.Body)
			}
		})
	}
}

func (f *fixture) keep(t *testing.T, kind string, obj core.Object) {
	t.Helper()
	if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Create, Kind: kind, Object: obj}); err != nil {
		t.Fatal(err)
	}
}
