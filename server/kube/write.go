package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// patchAttempts bounds how often a patch is applied anew because a controller
// wrote the object in between; controllers write in bursts, not for ever.
const patchAttempts = 10

// patch applies a merge patch (RFC 7386) to an object as it is now. A patch
// that names a resourceVersion is refused where that is not the object's.
func (a *API) patch(w http.ResponseWriter, req *http.Request, r *Resource) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		WriteError(w, fmt.Errorf("read the patch: %w", err))
		return
	}
	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil || change == nil {
		WriteError(w, BadRequest("the patch is not a JSON object"))
		return
	}
	key := r.key(req)
	for range patchAttempts {
		var after core.Object
		if after, err = a.patchOnce(req, r, key, change); err == nil {
			a.answer(w, req, r, []core.Object{after}, http.StatusOK)
			return
		}
		if !errors.Is(err, store.ErrConflict) || namesVersion(change) {
			break
		}
	}
	WriteError(w, r.named(err, key.Name))
}

func namesVersion(change map[string]any) bool {
	meta, _ := change["metadata"].(map[string]any)
	version, _ := meta["resourceVersion"].(string)
	return version != ""
}

func (a *API) patchOnce(req *http.Request, r *Resource, key store.Key, change map[string]any) (core.Object, error) {
	before, err := a.store.Get(req.Context(), key)
	if err != nil {
		return nil, err
	}
	encoded, err := r.encode(before)
	if err != nil {
		return nil, err
	}
	var document map[string]any
	if err := json.Unmarshal(encoded, &document); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", r.Singular, key.Name, err)
	}
	merged, err := json.Marshal(mergePatch(document, change))
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	after := r.New()
	if err := json.Unmarshal(merged, after); err != nil {
		return nil, r.misfit(err)
	}
	if err := r.checkIdentity(before, after); err != nil {
		return nil, err
	}
	if err := r.Patch(before, after); err != nil {
		return nil, err
	}
	if dryRun(req) {
		return after, nil
	}
	if _, err := a.store.Commit(req.Context(), store.Op{Verb: store.Update, Kind: r.StoreKind, Object: after}); err != nil {
		return nil, err
	}
	return after, nil
}

// mergePatch is RFC 7386: null removes, objects merge, all else replaces.
func mergePatch(target, change map[string]any) map[string]any {
	if target == nil {
		target = map[string]any{}
	}
	for name, value := range change {
		switch value := value.(type) {
		case nil:
			delete(target, name)
		case map[string]any:
			below, _ := target[name].(map[string]any)
			target[name] = mergePatch(below, value)
		default:
			target[name] = value
		}
	}
	return target
}

// checkIdentity refuses a change of what the server alone decides.
func (r *Resource) checkIdentity(before, after core.Object) error {
	b, a := before.Metadata(), after.Metadata()
	same := b.Name == a.Name && b.Namespace == a.Namespace && b.UID == a.UID && b.Generation == a.Generation &&
		b.GenerateName == a.GenerateName && b.CreationTimestamp.Equal(a.CreationTimestamp) &&
		reflect.DeepEqual(b.DeletionTimestamp, a.DeletionTimestamp) &&
		reflect.DeepEqual(b.OwnerReferences, a.OwnerReferences) && reflect.DeepEqual(b.Finalizers, a.Finalizers)
	if !same || after.Type().Kind != r.Kind {
		return &Error{Code: http.StatusUnprocessableEntity, Reason: "Invalid",
			Message: fmt.Sprintf("%s %q: of metadata only labels and annotations can be changed", r.QualifiedName(), b.Name)}
	}
	return nil
}

// patchRun lets clients cancel a run, archive it and change its labels; all else about a
// run is fixed when it is made, or is an observation.
func patchRun(before, after core.Object) error {
	b, a := before.(*skiff.Run), after.(*skiff.Run)
	invalid := func(message string) error {
		return &Error{Code: http.StatusUnprocessableEntity, Reason: "Invalid",
			Message: fmt.Sprintf("runs.skiff.dev %q: %s", b.Name, message)}
	}
	if b.Spec.Cancel && !a.Spec.Cancel {
		return invalid("spec.cancel: a cancelled run cannot be taken up again; submit it anew")
	}
	if !b.Spec.Cancel && a.Spec.Cancel && b.Status.State.Terminal() {
		return &Error{Code: http.StatusConflict, Reason: "Conflict",
			Message: fmt.Sprintf("run %s has already ended (%s); there is nothing to cancel", b.Name, b.Status.State)}
	}
	spec := b.Spec
	spec.Cancel, spec.Archived = a.Spec.Cancel, a.Spec.Archived
	if !equalJSON(spec, a.Spec) {
		return invalid("spec: only spec.cancel and spec.archived can be changed")
	}
	if !equalJSON(b.Status, a.Status) {
		return invalid("status: is what skiff observed and cannot be set")
	}
	return nil
}

// patchArtifact lets clients pin an artifact and change its labels.
func patchArtifact(before, after core.Object) error {
	b, a := before.(*skiff.Artifact), after.(*skiff.Artifact)
	if !equalJSON(b.Spec, a.Spec) || !equalJSON(b.Status, a.Status) {
		return &Error{Code: http.StatusUnprocessableEntity, Reason: "Invalid",
			Message: fmt.Sprintf("artifacts.skiff.dev %q: an artifact is what its task made; only its labels and annotations can be changed", b.Name)}
	}
	if why := b.Gone(); why != "" && skiff.Pinned(a) && !skiff.Pinned(b) {
		return &Error{Code: http.StatusConflict, Reason: "Conflict", Message: fmt.Sprintf("artifact %s cannot be kept: %s", b.Name, why)}
	}
	return nil
}

// patchPod lets clients stop a pod, release it from a hold, and change its labels.
func patchPod(before, after core.Object) error {
	b, a := before.(*core.Pod), after.(*core.Pod)
	spec := b.Spec
	if ext := a.Spec.Skiff; ext != nil && (ext.Stop || ext.Release) {
		var extension core.PodExtension
		if spec.Skiff != nil {
			extension = *spec.Skiff
		}
		extension.Stop, extension.Release = extension.Stop || ext.Stop, extension.Release || ext.Release
		spec.Skiff = &extension
	}
	if equalJSON(spec, a.Spec) && equalJSON(b.Status, a.Status) {
		return nil
	}
	return &Error{Code: http.StatusUnprocessableEntity, Reason: "Invalid",
		Message: fmt.Sprintf("pods %q: only spec.skiff.stop and spec.skiff.release can be set, and they are never taken back", b.Name)}
}

// equalJSON compares by content: raw JSON values come back from a patch with
// other white space.
func equalJSON(a, b any) bool {
	decode := func(v any) (generic any) {
		encoded, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(encoded, &generic)
		}
		if err != nil {
			return err
		}
		return generic
	}
	return reflect.DeepEqual(decode(a), decode(b))
}

func runRemovable(obj core.Object) error {
	run := obj.(*skiff.Run)
	if run.Status.State.Terminal() && skiff.Pinned(run) {
		return &Error{Code: http.StatusConflict, Reason: "Conflict",
			Message: fmt.Sprintf("run %s is pinned; unpin it first (skiff unpin run %s)", run.Name, run.Name)}
	}
	if run.Status.State.Terminal() {
		return nil
	}
	return &Error{Code: http.StatusConflict, Reason: "Conflict",
		Message: fmt.Sprintf("run %s is %s; cancel it first (skiff cancel %s) and delete it when it has ended",
			run.Name, run.Status.State, run.Name)}
}

// delete removes an object and what depends on it. Dependents go first: if the
// daemon dies in between, the owner is still there to delete again.
func (a *API) delete(w http.ResponseWriter, req *http.Request, r *Resource) {
	key := r.key(req)
	ctx := req.Context()
	obj, err := r.remove(ctx, a.store, key)
	if err != nil {
		WriteError(w, r.named(err, key.Name))
		return
	}
	// Finalizers hold an object until its controller has cleared up after it.
	if held, err := a.store.Get(ctx, key); err == nil && held.Metadata().UID == obj.Metadata().UID {
		a.answer(w, req, r, []core.Object{held}, http.StatusOK)
		return
	}
	WriteJSON(w, http.StatusOK, Status{
		Kind: "Status", APIVersion: "v1", Status: "Success", Code: http.StatusOK,
		Details: &StatusDetails{Name: key.Name, Group: r.Group, Kind: r.Plural, UID: obj.Metadata().UID},
	})
}

// RemoveRun deletes a run as a DELETE of the resource does: one that has ended,
// with its tasks and pods. A refusal is an *Error.
func RemoveRun(ctx context.Context, s store.Interface, namespace, name string) error {
	r := runs()
	_, err := r.remove(ctx, s, store.Key{Kind: r.StoreKind, Namespace: namespace, Name: name})
	return err
}

// remove deletes an object with what depends on it and returns what it was.
func (r *Resource) remove(ctx context.Context, s store.Interface, key store.Key) (core.Object, error) {
	obj, err := s.Get(ctx, key)
	if err == nil {
		err = r.Removable(obj)
	}
	if err != nil {
		return nil, err
	}
	for _, dependent := range r.Dependents {
		if err := deleteDependents(ctx, s, dependent, key); err != nil {
			return nil, fmt.Errorf("delete what belongs to %s %s: %w", r.Singular, key.Name, err)
		}
	}
	_, err = s.Commit(ctx, store.Op{Verb: store.Delete, Kind: r.StoreKind, Key: key, ResourceVersion: obj.Metadata().ResourceVersion})
	return obj, err
}

func deleteDependents(ctx context.Context, s store.Interface, d Dependent, owner store.Key) error {
	opts := store.ListOptions{Kind: d.StoreKind, Namespace: owner.Namespace, Index: d.Index, Prefix: d.Value(owner), Exact: true}
	for {
		page, err := s.List(ctx, opts)
		if err != nil {
			return err
		}
		ops := make([]store.Op, 0, len(page.Items))
		for _, obj := range page.Items {
			meta := obj.Metadata()
			if d.Keep != nil && d.Keep(obj) {
				continue
			}
			ops = append(ops, store.Op{Verb: store.Delete, Kind: d.StoreKind,
				Key: store.Key{Kind: d.StoreKind, Namespace: meta.Namespace, Name: meta.Name}})
		}
		if len(ops) > 0 {
			if _, err := s.Commit(ctx, ops...); err != nil {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}
