package kfp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// The parts of index values by storage state, as engine/pipeline declares them.
const (
	storageAvailable = "available"
	storageAll       = "all"
)

func (a *API) experimentListing(ctx context.Context) *listing {
	display := query.Text(func(o core.Object) string { return o.(*skiff.Experiment).Spec.DisplayName })
	id := query.Text(nameField)
	return &listing{Kind: experimentsKind, Limits: few(), Fields: map[string]query.Field{
		"experiment_id": id, "id": id, "name": display, "display_name": display,
		"created_at":          query.Moment(createdAt),
		"last_run_created_at": query.Moment(func(o core.Object) time.Time { return a.lastRun(ctx, o.Metadata()) }),
		"description":         query.Text(func(o core.Object) string { return o.(*skiff.Experiment).Spec.Description }),
		"namespace":           query.Text(namespaceField),
		"storage_state":       query.Enum(func(o core.Object) string { return query.StorageState(o.(*skiff.Experiment).Spec.Archived) }),
	}}
}

// lastRun is when an experiment's newest run was made; zero where there is none.
func (a *API) lastRun(ctx context.Context, experiment *core.ObjectMeta) time.Time {
	page, err := a.cfg.Store.List(ctx, store.ListOptions{Kind: runsKind, Namespace: experiment.Namespace, Index: byExperiment,
		Prefix: experiment.Name + separator + storageAll + separator, Limit: 1})
	if err != nil || len(page.Items) == 0 {
		return time.Time{}
	}
	return page.Items[0].Metadata().CreationTimestamp
}

func (a *API) experimentMessage(ctx context.Context, e *skiff.Experiment) *experiment {
	return &experiment{
		ExperimentID: e.Name, DisplayName: e.Spec.DisplayName, Description: e.Spec.Description, CreatedAt: stamp(e.CreationTimestamp),
		Namespace: e.Namespace, StorageState: query.StorageState(e.Spec.Archived), LastRunCreatedAt: stamp(a.lastRun(ctx, &e.ObjectMeta)),
	}
}

// ensureDefault makes a namespace's default experiment where there is none, so
// that clients always find one.
func (a *API) ensureDefault(ctx context.Context, namespace string) error {
	e := skiff.NewDefaultExperiment(namespace)
	_, err := a.cfg.Store.Get(ctx, store.Key{Kind: experimentsKind, Namespace: namespace, Name: e.Name})
	if errors.Is(err, store.ErrNotFound) {
		_, err = a.cfg.Store.Commit(ctx, store.Op{Verb: store.Create, Kind: experimentsKind, Object: e})
	}
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("make the default experiment: %w", err)
	}
	return nil
}

type listExperimentsResponse struct {
	Experiments   []*experiment `json:"experiments,omitempty"`
	TotalSize     int           `json:"total_size,omitempty"`
	NextPageToken string        `json:"next_page_token,omitempty"`
}

func (a *API) listExperiments(r *http.Request) (any, error) {
	ctx := r.Context()
	namespace, err := namespaceFor(r, r.URL.Query().Get("namespace"))
	if err != nil {
		return nil, err
	}
	if err := a.ensureDefault(ctx, namespace); err != nil {
		return nil, err
	}
	page, err := a.list(ctx, a.experimentListing(ctx), r.URL.Query(), namespace, "")
	if err != nil {
		return nil, err
	}
	answer := &listExperimentsResponse{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		answer.Experiments = append(answer.Experiments, a.experimentMessage(ctx, obj.(*skiff.Experiment)))
	}
	return answer, nil
}

func (a *API) createExperiment(r *http.Request) (any, error) {
	ctx := r.Context()
	var message experiment
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	namespace, err := namespaceFor(r, message.Namespace)
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(message.DisplayName)
	if problems := kfp.ValidateNames(name, name, message.Description); len(problems) > 0 {
		return nil, problems
	}
	e := &skiff.Experiment{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.ExperimentKind},
		ObjectMeta: core.ObjectMeta{Name: uuid.NewString(), Namespace: namespace},
		Spec:       skiff.ExperimentSpec{DisplayName: name, Description: message.Description},
	}
	a.names.Lock()
	defer a.names.Unlock()
	if err := a.ensureDefault(ctx, namespace); err != nil {
		return nil, err
	}
	taken, err := a.cfg.Store.Count(ctx, store.ListOptions{Kind: experimentsKind, Namespace: namespace, Index: byName, Prefix: name, Exact: true}, 1)
	if err != nil {
		return nil, err
	}
	if taken > 0 {
		return nil, refuse(rpcExists, "experiment %s already exists; choose another name", name)
	}
	if _, err := a.cfg.Store.Commit(ctx, store.Op{Verb: store.Create, Kind: experimentsKind, Object: e}); err != nil {
		return nil, named(err, "experiment", name)
	}
	return a.experimentMessage(ctx, e), nil
}

func (a *API) findExperiment(ctx context.Context, id string) (*skiff.Experiment, error) {
	return find[*skiff.Experiment](ctx, a, experimentsKind, "experiment", id)
}

// askedExperiment is the experiment that a request is about, once it may be.
func (a *API) askedExperiment(r *http.Request, id string) (*skiff.Experiment, error) {
	e, err := a.findExperiment(r.Context(), id)
	if err == nil {
		err = may(r, e.Namespace, e.Name)
	}
	return e, err
}

func (a *API) getExperiment(r *http.Request) (any, error) {
	e, err := a.askedExperiment(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return a.experimentMessage(r.Context(), e), nil
}

// deleteExperiment deletes the experiment alone: its runs and recurring runs
// stay, as is published.
func (a *API) deleteExperiment(r *http.Request) (any, error) {
	e, err := a.askedExperiment(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	_, err = a.cfg.Store.Commit(r.Context(), store.Op{Verb: store.Delete, Kind: experimentsKind,
		Key: store.Key{Kind: experimentsKind, Namespace: e.Namespace, Name: e.Name}})
	return empty(), named(err, "experiment", e.Name)
}

// action splits "ID:verb", the published form of a method that is none of HTTP's.
func action(r *http.Request) (id, verb string) {
	text := r.PathValue("name")
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return text, ""
	}
	return text[:i], text[i+1:]
}

func noAction(kind, verb string) error {
	if verb == "" {
		return refuse(rpcUnimplemented, "%s take no POST; want ID:ACTION", kind)
	}
	return refuse(rpcNotFound, "%s have no action %q", kind, verb)
}

func (a *API) experimentAction(r *http.Request) (any, error) {
	id, verb := action(r)
	if verb != "archive" && verb != "unarchive" {
		return nil, noAction("experiments", verb)
	}
	e, err := a.askedExperiment(r, id)
	if err != nil {
		return nil, err
	}
	return empty(), a.archiveExperiment(r.Context(), e, verb == "archive")
}

// archiveExperiment puts an experiment away with its runs, and disables its
// recurring runs; taking it out again leaves those as they are. The experiment
// comes first, so that no run joins it meanwhile; a repeat finishes what a
// daemon that ended had begun.
func (a *API) archiveExperiment(ctx context.Context, e *skiff.Experiment, away bool) error {
	_, err := change(ctx, a, experimentsKind, "experiment", e, func(e *skiff.Experiment) error {
		e.Spec.Archived = away
		return nil
	})
	if err != nil || !away {
		return err
	}
	disable := func(obj core.Object) error {
		r := obj.(*skiff.RecurringRun)
		if r.Spec.Disabled {
			return nil
		}
		return a.setDisabled(ctx, r, true)
	}
	err = a.each(ctx, store.ListOptions{Kind: recurringRunsKind, Namespace: e.Namespace, Index: byExperiment, Prefix: e.Name, Exact: true}, disable)
	if err != nil {
		return err
	}
	put := func(obj core.Object) error { return a.archiveRun(ctx, obj.(*skiff.Run), true) }
	return a.each(ctx, store.ListOptions{Kind: runsKind, Namespace: e.Namespace, Index: byExperiment,
		Prefix: e.Name + separator + storageAvailable + separator}, put)
}

// each calls fn for all objects of a list, page by page. What was deleted in
// between is passed over.
func (a *API) each(ctx context.Context, opts store.ListOptions, fn func(core.Object) error) error {
	for {
		page, err := a.cfg.Store.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, obj := range page.Items {
			var own *refusal
			if err := fn(obj); err != nil && (!errors.As(err, &own) || own.code != rpcNotFound) {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}
