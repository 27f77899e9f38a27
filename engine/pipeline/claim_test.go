package pipeline

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

// claimNode is a task named name with the inputs of a claim operation.
func claimNode(name string, params values) *node {
	return &node{path: name, task: &skiff.Task{ObjectMeta: core.ObjectMeta{Name: name}}, inputs: inputs{params: params}, outputs: values{}}
}

// TestClaimOperations: done again after a daemon died, an operation finds itself
// done; another's work is never taken for its own.
func TestClaimOperations(t *testing.T) {
	s := storetest.Open(t, append(Kinds(), pod.Kinds()...)...)
	x := &execution{c: &Controller{store: s}, run: &skiff.Run{ObjectMeta: core.ObjectMeta{Name: "run-1", Namespace: "default"}}}
	ctx := t.Context()
	params := func(more values) values {
		all := values{"access_modes": []any{"ReadWriteOnce"}, "size": "5Mi"}
		maps.Copy(all, more)
		return all
	}
	for _, tt := range []struct {
		task   string
		params values
		want   string // the claim's name; empty where err is expected
		err    string
	}{
		{"plain", params(values{"pvc_name": "data", "storage_class_name": "standard", "annotations": map[string]any{"a": "b"}}), "data", ""},
		{"plain", params(values{"pvc_name": "data"}), "data", ""}, // again
		{"other", params(values{"pvc_name": "data"}), "", `claim "data": there is one of this name already`},
		{"suffix", params(values{"pvc_name_suffix": "-my-pvc"}), "run-1-my-pvc", ""},
		{"neither", params(nil), "run-1-" + shortHash("neither"), ""},
		{"both", params(values{"pvc_name": "a", "pvc_name_suffix": "b"}), "", "only one may be given"},
		{"no size", values{"access_modes": []any{"ReadWriteOnce"}, "pvc_name": "x"}, "", "storage"},
		{"bad size", params(values{"pvc_name": "x", "size": "much"}), "", "size"},
		{"bad mode", params(values{"pvc_name": "x", "access_modes": []any{"Sometimes"}}), "", "Sometimes"},
		{"snapshot", params(values{"pvc_name": "x", "data_source": map[string]any{"kind": "VolumeSnapshot"}}), "", "data_source"},
	} {
		n := claimNode(tt.task, tt.params)
		err := x.createClaim(ctx, n)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.task, err, tt.err)
			}
			continue
		}
		if err != nil || n.outputs["name"] != tt.want {
			t.Errorf("%s: %v, %v, want %s", tt.task, n.outputs, err, tt.want)
		}
	}
	key := store.Key{Kind: claimsKind, Namespace: "default", Name: "data"}
	claim, err := store.GetAs[*core.PersistentVolumeClaim](ctx, s, key)
	if err != nil {
		t.Fatal(err)
	}
	if claim.Annotations["a"] != "b" || *claim.Spec.StorageClassName != "standard" || claim.Labels[core.LabelRun] != "run-1" || claim.Status.Phase != "Bound" {
		t.Errorf("claim = %+v", claim)
	}
	named := values{"pvc_name": "data"}
	if err := x.deleteClaim(ctx, claimNode("delete", named), false); err != nil {
		t.Fatal(err)
	}
	// It is held until its volume is gone; then it is there no more.
	if claim, err = store.GetAs[*core.PersistentVolumeClaim](ctx, s, key); err != nil || claim.DeletionTimestamp == nil {
		t.Fatalf("claim = %+v, %v", claim, err)
	}
	claim.Finalizers = nil
	if _, err := s.Commit(ctx, store.Op{Verb: store.Update, Kind: claimsKind, Object: claim}); err != nil {
		t.Fatal(err)
	}
	if err := x.deleteClaim(ctx, claimNode("delete", named), true); err != nil {
		t.Errorf("the same task again: %v", err)
	}
	if err := x.deleteClaim(ctx, claimNode("late", named), false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another task: %v, want that there is none", err)
	}
	workspace := &core.PersistentVolumeClaim{ObjectMeta: core.ObjectMeta{Name: "run-1-workspace", Namespace: "default", OwnerReferences: []core.OwnerReference{x.ownedByRun()}}}
	if _, err := s.Commit(ctx, store.Op{Verb: store.Create, Kind: claimsKind, Object: workspace}); err != nil {
		t.Fatal(err)
	}
	if err := x.deleteClaim(ctx, claimNode("own", values{"pvc_name": workspace.Name}), false); err == nil || !strings.Contains(err.Error(), "workspace of a run") {
		t.Errorf("the run's workspace: %v", err)
	}
}
