package server_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

const artifactsPath = "/apis/skiff.dev/v1alpha1/namespaces/default/artifacts"

// TestDeleteTakesTheWorkspaceAlong: its claim goes with the run and not before,
// and is held until its volume is gone. Other claims of the run's making stay.
func TestDeleteTakesTheWorkspaceAlong(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	f.put(t, "r2", skiff.StateSucceeded)
	for name, owners := range map[string][]core.OwnerReference{
		"r1-workspace": {{Kind: skiff.RunKind, Name: "r1"}}, "r2-workspace": {{Kind: skiff.RunKind, Name: "r2"}}, "made-by-r1": nil,
	} {
		claim := &core.PersistentVolumeClaim{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default", OwnerReferences: owners, Labels: map[string]string{core.LabelRun: "r1"}}}
		claim.Default()
		if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Create, Kind: "persistentvolumeclaims", Object: claim}); err != nil {
			t.Fatal(err)
		}
	}
	w := f.do("DELETE", claimsPath+"/r1-workspace", nil, bearer(token))
	if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "skiff delete run r1") {
		t.Errorf("the claim alone: %d %s", w.Code, w.Body)
	}
	if w = f.do("DELETE", runsPath+"/r1", nil, bearer(token)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, gone := range map[string]bool{"r1-workspace": true, "r2-workspace": false, "made-by-r1": false} {
		obj, err := f.store.Get(t.Context(), store.Key{Kind: "persistentvolumeclaims", Namespace: "default", Name: name})
		if err != nil || (obj.Metadata().DeletionTimestamp != nil) != gone {
			t.Errorf("claim %s: %+v, %v; on its way out: want %t", name, obj, err, gone)
		}
	}
}

// TestDeleteTakesArtifactsAlong: what the run made goes with it, held until its
// contents are gone; what somebody pinned or uses stays, and so do imports.
func TestDeleteTakesArtifactsAlong(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	owned := []core.OwnerReference{{Kind: skiff.RunKind, Name: "r1"}}
	for name, change := range map[string]func(*skiff.Artifact){
		"made":   func(a *skiff.Artifact) { a.Finalizers = []string{skiff.FinalizerContents} },
		"never":  func(a *skiff.Artifact) { a.Status = skiff.ArtifactStatus{Missing: true} },
		"pinned": func(a *skiff.Artifact) { a.Annotations = map[string]string{skiff.AnnotationPinned: "true"} },
		"used":   func(a *skiff.Artifact) { a.Status.UsedAt = time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC) },
		"import": func(a *skiff.Artifact) { a.OwnerReferences, a.Spec.Imported = nil, true },
	} {
		a := &skiff.Artifact{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default", OwnerReferences: owned},
			Spec: skiff.ArtifactSpec{URI: "minio://b/" + name, Run: "r1"}, Status: skiff.ArtifactStatus{Size: 5}}
		change(a)
		if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Create, Kind: "artifacts.skiff.dev", Object: a}); err != nil {
			t.Fatal(err)
		}
	}
	patch := func(path, value string) int {
		body := strings.NewReader(`{"metadata":{"annotations":{"skiff.dev/pinned":` + value + `}}}`)
		return f.do("PATCH", path, body, both(bearer(token), header("Content-Type", "application/merge-patch+json"))).Code
	}
	if code := patch(runsPath+"/r1", `"true"`); code != http.StatusOK {
		t.Fatalf("pin the run: %d", code)
	}
	if w := f.do("DELETE", runsPath+"/r1", nil, bearer(token)); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "skiff unpin run r1") {
		t.Errorf("a pinned run: %d %s", w.Code, w.Body)
	}
	if code := patch(runsPath+"/r1", "null"); code != http.StatusOK {
		t.Fatalf("unpin the run: %d", code)
	}
	if w := f.do("DELETE", runsPath+"/r1", nil, bearer(token)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	got := map[string]string{}
	for _, name := range []string{"made", "never", "pinned", "used", "import"} {
		obj, err := f.store.Get(t.Context(), store.Key{Kind: "artifacts.skiff.dev", Namespace: "default", Name: name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			got[name] = "gone"
		case err != nil:
			t.Fatal(err)
		case obj.Metadata().DeletionTimestamp != nil:
			got[name] = "held"
		default:
			got[name] = "kept"
		}
	}
	want := map[string]string{"made": "held", "never": "gone", "pinned": "kept", "used": "kept", "import": "kept"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w := f.do("GET", artifactsPath+"/made/content", nil, bearer(token))
	if w.Code != http.StatusGone || !strings.Contains(w.Body.String(), "deleted with its run") {
		t.Errorf("its contents: %d %s", w.Code, w.Body)
	}
}

// TestPurgedArtifact: everybody who asks for what is gone is told why.
func TestPurgedArtifact(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	f.rooms.logs["r1-pod"] = "" // there is such a pod
	_, err := store.ModifyAs(t.Context(), f.store, store.Key{Kind: "artifacts.skiff.dev", Namespace: "default", Name: "r1-metrics"}, func(a *skiff.Artifact) error {
		a.Status = skiff.ArtifactStatus{Size: 5, Digest: "sha256:ab", Purged: &skiff.Purge{At: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Reason: "max-age", Message: "it is old"}}
		return nil
	})
	if err == nil {
		_, err = store.ModifyAs(t.Context(), f.store, store.Key{Kind: "tasks.skiff.dev", Namespace: "default", Name: "r1-prepare"}, func(task *skiff.Task) error {
			task.Status.InputArtifacts = map[string][]string{"data": {"r1-metrics", "none"}}
			task.Status.OutputArtifacts = map[string][]string{"metrics": {"r1-metrics"}}
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	const why = "its contents were removed on 2026-03-01 00:00:00 (max-age): it is old"
	merge := both(bearer(token), header("Content-Type", "application/merge-patch+json"))
	for _, tc := range []struct {
		method, path, body string
		change             func(*http.Request)
		code               int
		want               string
	}{
		{"GET", artifactsPath + "/r1-metrics/content", "", bearer(token), http.StatusGone, why},
		{"GET", artifactsPath + "/r1-metrics", "", bearer(token), http.StatusOK, `"digest":"sha256:ab"`},
		{"GET", artifactsPath, "", both(bearer(token), header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")), http.StatusOK, "(removed)"},
		{"GET", runsPath + "/r1/document", "", bearer(token), http.StatusOK, why},
		{"GET", "/apis/v2beta1/runs/r1/nodes/prepare/artifacts/metrics:read", "", bearer(token), http.StatusNotFound, why},
		{"PATCH", artifactsPath + "/r1-metrics", `{"metadata":{"annotations":{"skiff.dev/pinned":"true"}}}`, merge, http.StatusConflict, why},
		{"PATCH", artifactsPath + "/r1-metrics", `{"metadata":{"labels":{"a":"b"}}}`, merge, http.StatusOK, `"a":"b"`},
		{"PATCH", artifactsPath + "/r1-metrics", `{"status":{"purged":null}}`, merge, http.StatusUnprocessableEntity, "only its labels"},
		{"POST", tasksPath + "/r1-prepare/debug", "", bearer(token), http.StatusCreated, "input data: artifact r1-metrics: " + why},
		{"POST", artifactsPath + ":gc?dryRun=All&retain=max-age=30d", "", bearer(token), http.StatusOK, `"retention":"max-age=30d","dryRun":true`},
		{"POST", artifactsPath + ":gc", "", bearer(token), http.StatusOK, `"retention":""`},
		{"POST", artifactsPath + ":gc?retain=soon", "", bearer(token), http.StatusBadRequest, "is no bound"},
	} {
		w := f.do(tc.method, tc.path, strings.NewReader(tc.body), tc.change)
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s %s: %d %s; want %d, %q", tc.method, tc.path, w.Code, w.Body, tc.code, tc.want)
		}
	}
}
