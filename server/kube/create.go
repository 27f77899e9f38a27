package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// create stores a new object.
func (a *API) create(w http.ResponseWriter, req *http.Request, r *Resource) {
	obj, err := r.read(req)
	if err == nil {
		err = r.admitNew(obj)
	}
	if err == nil && !dryRun(req) {
		_, err = a.store.Commit(req.Context(), store.Op{Verb: store.Create, Kind: r.StoreKind, Object: obj})
	}
	if err != nil {
		name := ""
		if obj != nil {
			name = obj.Metadata().Name
		}
		WriteError(w, r.named(err, name))
		return
	}
	a.answer(w, req, r, []core.Object{obj}, http.StatusCreated)
}

// replace writes an object as a whole over the one that is there. Without a
// resourceVersion in it, it is unconditional.
func (a *API) replace(w http.ResponseWriter, req *http.Request, r *Resource) {
	key := r.key(req)
	after, err := r.read(req)
	if err != nil {
		WriteError(w, err)
		return
	}
	sent := *after.Metadata()
	for range patchAttempts {
		*after.Metadata() = sent
		err = a.replaceOnce(req, r, key, after)
		if !errors.Is(err, store.ErrConflict) || sent.ResourceVersion != "" || sent.UID != "" {
			break
		}
	}
	if err != nil {
		WriteError(w, r.named(err, key.Name))
		return
	}
	a.answer(w, req, r, []core.Object{after}, http.StatusOK)
}

func (a *API) replaceOnce(req *http.Request, r *Resource, key store.Key, after core.Object) error {
	before, err := a.store.Get(req.Context(), key)
	if err != nil {
		return err
	}
	m, was := after.Metadata(), before.Metadata()
	if m.Name != key.Name {
		return BadRequest("the name of the object, %q, is not that of the address, %q", m.Name, key.Name)
	}
	if m.UID != "" && m.UID != was.UID {
		return fmt.Errorf("replace %s %s: it was deleted and made anew: %w", r.Singular, key.Name, store.ErrConflict)
	}
	if m.ResourceVersion != "" && m.ResourceVersion != was.ResourceVersion {
		return fmt.Errorf("replace %s %s: %w", r.Singular, key.Name, store.ErrConflict)
	}
	// What the server alone decides need not be sent, and is not taken.
	labels, annotations := m.Labels, m.Annotations
	*m = *was
	m.Labels, m.Annotations = labels, annotations
	if err := r.Patch(before, after); err != nil {
		return err
	}
	if dryRun(req) {
		return nil
	}
	// The commit is held to what was checked against, whatever was sent.
	_, err = a.store.Commit(req.Context(), store.Op{Verb: store.Update, Kind: r.StoreKind, Object: after})
	return err
}

// read decodes the object in a request's body. Values are part of no error.
func (r *Resource) read(req *http.Request) (core.Object, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	obj := r.New()
	decoder := json.NewDecoder(bytes.NewReader(body))
	if req.URL.Query().Get("fieldValidation") == "Strict" {
		decoder.DisallowUnknownFields()
	}
	if err := decoder.Decode(obj); err != nil {
		return nil, r.misfit(err)
	}
	if t := obj.Type(); (t.Kind != "" && t.Kind != r.Kind) || (t.APIVersion != "" && t.APIVersion != r.APIVersion()) {
		return nil, BadRequest("the body is a %s of %s; want a %s of %s", t.Kind, t.APIVersion, r.Kind, r.APIVersion())
	}
	*obj.Type() = core.TypeMeta{APIVersion: r.APIVersion(), Kind: r.Kind}
	namespace := req.PathValue("namespace")
	if m := obj.Metadata(); m.Namespace != "" && m.Namespace != namespace {
		return nil, BadRequest("the namespace of the object, %q, is not that of the address, %q", m.Namespace, namespace)
	}
	obj.Metadata().Namespace = namespace
	return obj, nil
}

// misfit says where a document does not fit. The decoder's own words may quote
// what is there.
func (r *Resource) misfit(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return BadRequest("the body does not fit %s: the field %s cannot hold a %.6s", r.Kind, wrong.Field, wrong.Value)
	}
	if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
		return BadRequest("the body is not JSON, at byte %d", wrong.Offset)
	}
	if r.Shown == nil {
		return BadRequest("the body does not fit %s: %v", r.Kind, err)
	}
	return BadRequest("the body does not fit %s: values of data are base64, those of stringData text, and there are no other fields "+
		"than metadata, data, stringData, type and immutable", r.Kind)
}

// admitNew holds a new object to what the server alone decides and to its kind.
func (r *Resource) admitNew(obj core.Object) error {
	m := obj.Metadata()
	if m.ResourceVersion != "" {
		return BadRequest("metadata.resourceVersion must not be set on an object that is to be made")
	}
	if len(m.Finalizers) > 0 || len(m.OwnerReferences) > 0 {
		return BadRequest("metadata.finalizers and metadata.ownerReferences are the engines' own; remove them")
	}
	if !core.IsDNSSubdomain(m.Namespace) {
		return BadRequest("namespace %q: want lower-case letters, digits, '-' and '.'", m.Namespace)
	}
	*m = core.ObjectMeta{Name: m.Name, GenerateName: m.GenerateName, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations}
	return r.Create(obj)
}

func dryRun(req *http.Request) bool {
	value := req.URL.Query().Get("dryRun")
	return value == "All" || isTrue(value)
}
