package view_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/server/view"
)

func raw(text string) json.RawMessage { return json.RawMessage(text) }

// values writes parameters and metrics down as JSON text.
func values(texts map[string]string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for name, text := range texts {
		out[name] = raw(text)
	}
	return out
}

func metric(task, name, value string) view.Metric {
	return view.Metric{Task: task, Artifact: "metrics", Name: name, Value: raw(value)}
}

// text is a document without the rows' structure: name, values, best.
func rows(metrics []view.ComparedMetric) []string {
	var out []string
	for _, m := range metrics {
		line := m.Name + " " + string(m.Better)
		for i, v := range m.Values {
			cell := string(v)
			if v == nil {
				cell = "-"
			}
			for _, b := range m.Best {
				if b == i {
					cell += "*"
				}
			}
			line += " " + cell
		}
		out = append(out, line)
	}
	return out
}

func TestCompare(t *testing.T) {
	a := &view.Run{RunID: "a", Pipeline: "p", State: "SUCCEEDED",
		Parameters: values(map[string]string{"lr": "0.1", "epochs": "3", "layers": `[64,32]`, "only": `"x"`, "null": "null"}),
		Metrics: []view.Metric{metric("train", "accuracy", "0.9"), metric("train", "loss", "0.5"), metric("train", "drift", "1"),
			metric("test", "loss", "0.25"), metric("train", "f1", "0.5")}}
	b := &view.Run{RunID: "b", Pipeline: "p", State: "FAILED", Fake: true,
		Parameters: values(map[string]string{"lr": "0.10", "epochs": "3.0", "layers": `[64, 32, 8]`, "null": "null"}),
		Metrics: []view.Metric{metric("train", "accuracy", "0.8"), metric("train", "loss", "0.4"), metric("train", "drift", "2"),
			metric("test", "loss", "0.25"), metric("train", "f1", "0.5"), metric("train", "val_accuracy", "1")}}
	c := view.Compare([]*view.Run{a, b}, map[string]view.Direction{"drift": view.Lower})
	if diff := cmp.Diff([]view.ComparedRun{{RunID: "a", Pipeline: "p", State: "SUCCEEDED"}, {RunID: "b", Pipeline: "p", State: "FAILED", Fake: true}}, c.Runs); diff != "" {
		t.Error(diff)
	}
	want := []view.ComparedValues{{Name: "layers", Values: []json.RawMessage{raw(`[64,32]`), raw(`[64, 32, 8]`)}},
		{Name: "only", Values: []json.RawMessage{raw(`"x"`), nil}}}
	if diff := cmp.Diff(want, c.Parameters); diff != "" || c.Same != 3 {
		t.Errorf("same %d: %s", c.Same, diff)
	}
	if diff := cmp.Diff([]string{
		"accuracy higher 0.9* 0.8", "drift lower 1* 2", "f1 higher 0.5 0.5",
		"test/loss lower 0.25 0.25", "train/loss lower 0.5 0.4*", "val_accuracy higher - 1",
	}, rows(c.Metrics)); diff != "" {
		t.Error(diff)
	}
	// A document that scripts read has lists where there is nothing.
	empty, err := json.Marshal(view.Compare([]*view.Run{{RunID: "x"}, {RunID: "y"}}, nil))
	if err != nil || strings.Count(string(empty), "null") != 0 {
		t.Errorf("%s %v", empty, err)
	}
}

func TestCompareClassification(t *testing.T) {
	run := func(kind, metadata string) *view.Run {
		var m map[string]json.RawMessage
		if err := json.Unmarshal([]byte(metadata), &m); err != nil {
			t.Fatal(err)
		}
		return &view.Run{Artifacts: []view.Artifact{{Name: "cm", Task: "eval", Type: kind, Metadata: m}}}
	}
	const kind = "system.ClassificationMetrics"
	c := view.Compare([]*view.Run{
		// Of 4 cats 3 are found, of 6 dogs 5; recall 0.75 and 5/6.
		run(kind, `{"confusionMatrix": {"annotationSpecs": [{"displayName": "cat"}, {"displayName": "dog"}], "rows": [{"row": [3, 1]}, {"row": [1, 5]}]},
			"confidenceMetrics": [{"confidenceThreshold": 0.5, "recall": 0.5, "falsePositiveRate": 0}, {"confidenceThreshold": 0.2, "recall": 1, "falsePositiveRate": 0.5}]}`),
		run(kind, `{"confusionMatrix": {"rows": [{"row": [4, 0]}, {"row": [0, 0]}]}}`),
		run(kind, `{"confusionMatrix": {"rows": [{"row": [1, 2, 3]}]}, "confidenceMetrics": [{"recall": 1}]}`),
		run(kind, `{"confusionMatrix": {"rows": [{"row": [0]}]}, "confidenceMetrics": "none"}`),
		run("system.Metrics", `{"confusionMatrix": {"rows": [{"row": [1]}]}}`),
	}, nil)
	if diff := cmp.Diff([]string{
		"accuracy higher 0.8 1* - - -",
		"auc higher 0.875 - - - -",
		"f1_macro higher 0.7916666666666667* 0.5 - - -",
		"precision_macro higher 0.7916666666666667* 0.5 - - -",
		"recall_macro higher 0.7916666666666667* 0.5 - - -",
		"samples  10 4 - - -",
	}, rows(c.Classification)); diff != "" {
		t.Error(diff)
	}
}

func TestDirectionOf(t *testing.T) {
	for name, want := range map[string]view.Direction{
		"accuracy": view.Higher, "val_accuracy": view.Higher, "valAccuracy": view.Higher, "AUC": view.Higher, "f1": view.Higher,
		"loss": view.Lower, "trainLoss": view.Lower, "rmse": view.Lower, "error_score": view.Lower, "P99 latency": view.Lower,
		"glossy": view.NoDirection, "steps": view.NoDirection, "": view.NoDirection, "résumé": view.NoDirection,
	} {
		if got := view.DirectionOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
