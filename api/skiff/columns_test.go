package skiff_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
)

// FuzzRunColumns: what is written of a run is read back, whatever its texts hold,
// or said not to be there.
func FuzzRunColumns(f *testing.F) {
	f.Add("name\x00", "train", "e1", "rr", true)
	f.Add("", "a\x1fb", "", "", false)
	f.Add("x\x00", strings.Repeat("long", 100), "e", "", false)
	f.Fuzz(func(t *testing.T, beginning, name, experiment, recurring string, archived bool) {
		if strings.ContainsAny(experiment+recurring, "\x00\x1f") || experiment == "" {
			t.Skip("names of objects, which hold neither")
		}
		run := &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "r1"},
			Spec: skiff.RunSpec{DisplayName: name, Experiment: experiment, RecurringRun: recurring, Archived: archived}}
		const created = "00ff00ff00ff00ff"
		c, ok := skiff.ParseRunColumns([]byte(skiff.RunIndexValue(beginning, created, run.Name, skiff.ColumnsOf(run))))
		if !ok || string(c.Experiment) != experiment || string(c.RecurringRun) != recurring || c.Archived != archived || string(c.State) != "PENDING" {
			t.Fatalf("%q is read back as %+v, %v", name, c, ok)
		}
		if !c.NameCut && string(c.Name) != name {
			t.Fatalf("%q is read back as %q", name, c.Name)
		}
		if !strings.HasSuffix(string(c.Created), created) {
			t.Fatalf("made at %q", c.Created)
		}
	})
}

// TestOrderValue: values sort as they should, written in any way.
func TestOrderValue(t *testing.T) {
	ascending := []string{fmt.Sprint(-math.MaxFloat64), "-1e3", "-2", "-0.5", "0", "5e-324", "0.1", "1", "1.5", "10", "1e300", `""`, `"10"`, `"a"`, `"ab"`, `"b"`, "true"}
	var keys []string
	for _, value := range ascending {
		keys = append(keys, skiff.OrderValue(json.RawMessage(value)))
	}
	if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
		t.Errorf("%q", keys)
	}
	for a, b := range map[string]string{"1": "1.0", "0": "-0.0", "100": "1e2"} {
		if skiff.OrderValue(json.RawMessage(a)) != skiff.OrderValue(json.RawMessage(b)) {
			t.Errorf("%s and %s differ", a, b)
		}
	}
	for _, none := range []string{"", "null"} {
		if key := skiff.OrderValue(json.RawMessage(none)); key != "" {
			t.Errorf("%q is %q", none, key)
		}
	}
}

// TestSummarizeMetrics: by name alone the latest task counts, a scalar before a
// classification, and there is an end to it.
func TestSummarizeMetrics(t *testing.T) {
	metric := func(task, name, value string) skiff.Metric {
		return skiff.Metric{Task: task, Artifact: "m", Name: name, Value: json.RawMessage(value)}
	}
	got := skiff.SummarizeMetrics([]skiff.Metric{metric("a", "loss", "0.5"), metric("b", "loss", "0.25"), metric("b", "acc", "0.9")},
		[]skiff.Metric{metric("c", "acc", "0.1"), metric("c", "auc", "0.7")})
	for name, want := range map[string]string{"loss": "0.25", "a/loss": "0.5", "b/loss": "0.25", "acc": "0.9", "auc": "0.7"} {
		if string(got[name]) != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	var many []skiff.Metric
	for i := range 1000 {
		many = append(many, metric(fmt.Sprint("loop/", i), "loss", fmt.Sprint(i)))
	}
	if got := skiff.SummarizeMetrics(many, nil); len(got) != skiff.MaxRunMetrics || string(got["loss"]) != "999" {
		t.Errorf("%d metrics, loss %s", len(got), got["loss"])
	}
	if got := skiff.SummarizeMetrics(nil, nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}
