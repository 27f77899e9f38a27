package view

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/skiff"
)

// again is a run of two tasks with one output of each kind.
func again(id string) *Run {
	return &Run{
		RunID: id, State: skiff.StateSucceeded, Outputs: map[string]json.RawMessage{"best": json.RawMessage(`0.5`)},
		OutputArtifacts: map[string][]string{"model": {id + "-model"}},
		Tasks: []Task{
			{Name: "prepare", State: skiff.StateSucceeded, ImageDigest: "sha256:a"},
			{Name: "train", State: skiff.StateSucceeded, ImageDigest: "sha256:a", Outputs: map[string]json.RawMessage{"n": json.RawMessage(`{"a":1,"b":2}`)},
				OutputArtifacts: map[string][]string{"model": {id + "-model"}, "parts": {id + "-p0", id + "-p1"}, "never": {id + "-never"}}},
		},
		Artifacts: []Artifact{
			{ID: id + "-model", Digest: "sha256:0123456789abcdef", Metadata: map[string]json.RawMessage{"f1": json.RawMessage(`0.5`)}},
			{ID: id + "-p0", Digest: "sha256:p0"}, {ID: id + "-p1", Digest: "sha256:p1"}, {ID: id + "-never", Missing: true},
		},
	}
}

func TestReproduce(t *testing.T) {
	train := func(r *Run) *Task { return &r.Tasks[1] }
	for _, tc := range []struct {
		name   string
		change func(a, b *Run)
		// want is the differences as text, by task; "" is the run.
		want map[string][]string
	}{
		{name: "the same", change: func(_, _ *Run) {}},
		{name: "keys in another order", change: func(_, b *Run) { train(b).Outputs["n"] = json.RawMessage(`{ "b": 2, "a": 1 }`) }},
		{name: "a parameter", change: func(_, b *Run) { train(b).Outputs["n"] = json.RawMessage(`{"a":1,"b":3}`) },
			want: map[string][]string{"train": {`parameter n: {"a":1,"b":3}, was {"a":1,"b":2}`}}},
		{name: "the last digit", change: func(a, b *Run) {
			train(a).Outputs["n"], train(b).Outputs["n"] = json.RawMessage(`9007199254740993`), json.RawMessage(`9007199254740992`)
		}, want: map[string][]string{"train": {"parameter n: 9007199254740992, was 9007199254740993"}}},
		{name: "a parameter too many", change: func(_, b *Run) { train(b).Outputs["m"] = json.RawMessage(`null`) },
			want: map[string][]string{"train": {"parameter m: none, was none"}}},
		{name: "contents", change: func(_, b *Run) { b.Artifacts[0].Digest = "sha256:fedcba9876543210" },
			want: map[string][]string{"": {"artifact model: sha256:fedcba987654, was sha256:0123456789ab"}, "train": {"artifact model: sha256:fedcba987654, was sha256:0123456789ab"}}},
		{name: "metadata", change: func(_, b *Run) { b.Artifacts[0].Metadata = nil },
			want: map[string][]string{"": {`metadata model: {}, was {"f1":0.5}`}, "train": {`metadata model: {}, was {"f1":0.5}`}}},
		{name: "contents that nobody hashed", change: func(a, b *Run) { a.Artifacts[1].Digest, b.Artifacts[1].Digest = "", "" },
			want: map[string][]string{"train": {"artifact parts[0]: unknown, was unknown"}}},
		{name: "parts in another order", change: func(_, b *Run) {
			b.Artifacts[1], b.Artifacts[2] = Artifact{ID: b.RunID + "-p0", Digest: "sha256:p1"}, Artifact{ID: b.RunID + "-p1", Digest: "sha256:p0"}
		}, want: map[string][]string{"train": {"artifact parts[0]: sha256:p1, was sha256:p0", "artifact parts[1]: sha256:p0, was sha256:p1"}}},
		{name: "fewer parts", change: func(_, b *Run) { train(b).OutputArtifacts["parts"] = train(b).OutputArtifacts["parts"][:1] },
			want: map[string][]string{"train": {"artifact parts[1]: none, was sha256:p1"}}},
		{name: "written now", change: func(_, b *Run) { b.Artifacts[3] = Artifact{ID: b.RunID + "-never", Digest: "sha256:x"} },
			want: map[string][]string{"train": {"artifact never: sha256:x, was never written"}}},
		{name: "a state", change: func(_, b *Run) { train(b).State, b.State = skiff.StateFailed, skiff.StateFailed },
			want: map[string][]string{"": {"state: FAILED, was SUCCEEDED"}, "train": {"state: FAILED, was SUCCEEDED"}}},
		{name: "an image", change: func(_, b *Run) { b.Tasks[0].ImageDigest = "sha256:b" },
			want: map[string][]string{"prepare": {"image: sha256:b, was sha256:a"}}},
		{name: "a task less", change: func(_, b *Run) { b.Tasks = b.Tasks[1:] }, want: map[string][]string{"prepare": {"task: none, was SUCCEEDED"}}},
		{name: "a task more", change: func(_, b *Run) { b.Tasks = append(b.Tasks, Task{Name: "extra", State: skiff.StateSucceeded}) },
			want: map[string][]string{"extra": {"task: SUCCEEDED, was none"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := again("a"), again("b")
			tc.change(a, b)
			r := Reproduce(a, b, nil)
			got := map[string][]string{}
			note := func(task string, list []Difference) {
				for _, d := range list {
					got[task] = append(got[task], d.Text())
				}
			}
			note("", r.Differences)
			for _, task := range r.Tasks {
				note(task.Name, task.Differences)
				if task.Identical != (len(task.Differences) == 0) {
					t.Errorf("%s: identical is %v", task.Name, task.Identical)
				}
			}
			want := tc.want
			if want == nil {
				want = map[string][]string{}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
			if r.Identical != (len(want) == 0) {
				t.Errorf("identical is %v", r.Identical)
			}
		})
	}
}
