package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/store"
)

// API serves the resources of one store.
type API struct {
	store     store.Interface
	resources []Resource
	now       func() time.Time
}

// Config is what an API needs.
type Config struct {
	Store store.Interface
	// Resources default to Resources().
	Resources []Resource
	// Now is the clock that ages are computed with; time.Now by default.
	Now func() time.Time
}

// New makes an API.
func New(cfg Config) *API {
	a := &API{store: cfg.Store, resources: cfg.Resources, now: cfg.Now}
	if a.resources == nil {
		a.resources = Resources()
	}
	if a.now == nil {
		a.now = time.Now
	}
	return a
}

// Content types of a merge patch; plain JSON is what simple clients send.
const (
	mergePatchType = "application/merge-patch+json"
	jsonType       = "application/json"
)

// Routes are the resources' endpoints and discovery.
func (a *API) Routes() []route.Route {
	routes := a.discoveryRoutes()
	for i := range a.resources {
		r := &a.resources[i]
		add := func(method, path, verb string, h http.HandlerFunc, accepts ...string) {
			routes = append(routes, route.Route{
				Method: method, Path: path, Verb: verb, Group: r.Group, Resource: r.Plural,
				Accepts: accepts, Handler: h,
			})
		}
		list := func(w http.ResponseWriter, req *http.Request) { a.list(w, req, r) }
		collection := r.root() + "/namespaces/{namespace}/" + r.Plural
		one := collection + "/{name}"
		// A watch is a list with a query parameter, so the authorizer is asked
		// about lists; whoever may list may watch.
		add(http.MethodGet, r.root()+"/"+r.Plural, "list", list)
		add(http.MethodGet, collection, "list", list)
		routes[len(routes)-1].Stream = true
		routes[len(routes)-2].Stream = true
		add(http.MethodGet, one, "get", func(w http.ResponseWriter, req *http.Request) { a.get(w, req, r) })
		if r.Create != nil {
			add(http.MethodPost, collection, "create", func(w http.ResponseWriter, req *http.Request) { a.create(w, req, r) }, jsonType)
		}
		if r.Replaceable {
			add(http.MethodPut, one, "update", func(w http.ResponseWriter, req *http.Request) { a.replace(w, req, r) }, jsonType)
		}
		if r.Removable != nil {
			add(http.MethodDelete, one, "delete", func(w http.ResponseWriter, req *http.Request) { a.delete(w, req, r) }, jsonType)
		}
		if r.Patch != nil {
			add(http.MethodPatch, one, "patch", func(w http.ResponseWriter, req *http.Request) { a.patch(w, req, r) },
				mergePatchType, jsonType)
		}
	}
	return routes
}

func (r *Resource) key(req *http.Request) store.Key {
	return store.Key{Kind: r.StoreKind, Namespace: req.PathValue("namespace"), Name: req.PathValue("name")}
}

// named turns the store's "not found" and the like into the published sentence.
func (r *Resource) named(err error, name string) error {
	status := StatusOf(err)
	details := &StatusDetails{Name: name, Group: r.Group, Kind: r.Plural}
	switch status.Reason {
	case "NotFound":
		return &Error{Code: status.Code, Reason: status.Reason, Details: details,
			Message: fmt.Sprintf("%s %q not found", r.QualifiedName(), name)}
	case "AlreadyExists":
		return &Error{Code: status.Code, Reason: status.Reason, Details: details,
			Message: fmt.Sprintf("%s %q already exists", r.QualifiedName(), name)}
	case "Conflict":
		return &Error{Code: status.Code, Reason: status.Reason, Details: details,
			Message: fmt.Sprintf("Operation cannot be fulfilled on %s %q: %v", r.QualifiedName(), name, err)}
	}
	return err
}

func (a *API) get(w http.ResponseWriter, req *http.Request, r *Resource) {
	key := r.key(req)
	obj, err := a.store.Get(req.Context(), key)
	if err != nil {
		WriteError(w, r.named(err, key.Name))
		return
	}
	a.answer(w, req, r, []core.Object{obj}, http.StatusOK)
}

// answer writes one object, or its table where that was asked for.
func (a *API) answer(w http.ResponseWriter, req *http.Request, r *Resource, one []core.Object, code int) {
	if wantsTable(req.Header.Get("Accept")) {
		table, err := r.tableOf(one, req.URL.Query().Get("includeObject"), a.now())
		if err != nil {
			WriteError(w, err)
			return
		}
		table.Metadata.ResourceVersion = one[0].Metadata().ResourceVersion
		WriteJSON(w, code, table)
		return
	}
	body, err := r.encode(one[0])
	if err != nil {
		WriteError(w, err)
		return
	}
	WriteJSON(w, code, body)
}

// encode renders an object with its type, which the store need not have kept.
func (r *Resource) encode(obj core.Object) (json.RawMessage, error) {
	body, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", r.Singular, obj.Metadata().Name, err)
	}
	if obj.Type().Kind != "" {
		return body, nil
	}
	// The object may be shared with other watchers, so it is not touched.
	head, err := json.Marshal(core.TypeMeta{APIVersion: r.APIVersion(), Kind: r.Kind})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Singular, err)
	}
	return append(append(head[:len(head)-1], ','), body[1:]...), nil
}

// listQuery is what a list or watch selects.
type listQuery struct {
	labels Selector
	fields []fieldRequirement
	opts   store.ListOptions
	// resource gives the fields their meaning.
	resource *Resource
}

func (a *API) query(req *http.Request, r *Resource) (*listQuery, error) {
	values := req.URL.Query()
	labels, err := ParseSelector(values.Get("labelSelector"))
	if err != nil {
		return nil, err
	}
	fields, err := parseFields(values.Get("fieldSelector"))
	if err != nil {
		return nil, err
	}
	q := &listQuery{labels: labels, fields: fields, resource: r, opts: store.ListOptions{
		Kind: r.StoreKind, Namespace: req.PathValue("namespace"), Index: r.Order, Continue: values.Get("continue"),
	}}
	if text := values.Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 0 {
			return nil, BadRequest("limit %q: want a number of objects, 0 or more", text)
		}
		q.opts.Limit = min(limit, store.MaxPage)
	}
	for _, f := range fields {
		field, known := r.Fields[f.field]
		if !known && f.field != "metadata.name" && f.field != "metadata.namespace" {
			return nil, BadRequest("field selector: %s has no selectable field %q", r.Plural, f.field)
		}
		if field.Index != "" && !f.negate && f.value != "ended" {
			q.opts.Index, q.opts.Prefix, q.opts.Exact = field.Index, f.value, !field.Ordered
			if field.Ordered {
				q.opts.Prefix += "\x00"
			}
		}
	}
	for _, l := range labels {
		if index, known := r.Labels[l.Key]; known && l.Op == "=" && q.opts.Namespace != "" {
			q.opts.Index, q.opts.Prefix, q.opts.Exact = index.Index, index.Value(q.opts.Namespace, l.Values[0]), true
		}
	}
	if len(labels) > 0 || len(fields) > 0 {
		q.opts.Filter = q.matches
	}
	return q, nil
}

func (q *listQuery) matches(obj core.Object) bool {
	meta := obj.Metadata()
	for _, f := range q.fields {
		var value string
		switch f.field {
		case "metadata.name":
			value = meta.Name
		case "metadata.namespace":
			value = meta.Namespace
		default:
			value = q.resource.Fields[f.field].Value(obj)
		}
		if (value == f.value) == f.negate {
			return false
		}
	}
	return q.labels.Matches(meta.Labels)
}

// isTrue reads a boolean the way clients write them.
func isTrue(text string) bool {
	return text == "1" || strings.EqualFold(text, "true")
}

// listBody is the published shape of a list; Items is never null.
type listBody struct {
	Kind       string            `json:"kind"`
	APIVersion string            `json:"apiVersion"`
	Metadata   ListMeta          `json:"metadata"`
	Items      []json.RawMessage `json:"items"`
}

func (a *API) list(w http.ResponseWriter, req *http.Request, r *Resource) {
	q, err := a.query(req, r)
	if err != nil {
		WriteError(w, err)
		return
	}
	if isTrue(req.URL.Query().Get("watch")) {
		a.watch(w, req, q)
		return
	}
	var page store.Page
	if isPicked(req) {
		page, err = a.picked(req, r, q)
	} else if page, err = a.store.List(req.Context(), q.opts); err != nil {
		err = fmt.Errorf("list %s: %w", r.QualifiedName(), err)
	}
	if err != nil {
		WriteError(w, err)
		return
	}
	meta := ListMeta{ResourceVersion: strconv.FormatUint(page.Revision, 10), Continue: page.Continue}
	if wantsTable(req.Header.Get("Accept")) {
		table, err := r.tableOf(page.Items, req.URL.Query().Get("includeObject"), a.now())
		if err != nil {
			WriteError(w, err)
			return
		}
		table.Metadata = meta
		WriteJSON(w, http.StatusOK, table)
		return
	}
	body := listBody{Kind: r.Kind + "List", APIVersion: r.APIVersion(), Metadata: meta, Items: make([]json.RawMessage, 0, len(page.Items))}
	for _, obj := range page.Items {
		item, err := r.encode(obj)
		if err != nil {
			WriteError(w, err)
			return
		}
		body.Items = append(body.Items, item)
	}
	WriteJSON(w, http.StatusOK, body)
}
