package kfp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

type listRunsResponse struct {
	Runs          []*run `json:"runs,omitempty"`
	TotalSize     int    `json:"total_size,omitempty"`
	NextPageToken string `json:"next_page_token,omitempty"`
}

func (a *API) listRuns(r *http.Request) (any, error) {
	ctx := r.Context()
	page, err := a.inExperiment(r, query.Runs())
	if err != nil {
		return nil, err
	}
	answer := &listRunsResponse{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		message, err := a.runMessage(ctx, obj.(*skiff.Run))
		if err != nil {
			return nil, err
		}
		answer.Runs = append(answer.Runs, message)
	}
	return answer, nil
}

// spec is the pipeline of a manifest; nothing where the manifest is gone.
func (a *API) spec(ctx context.Context, namespace, name string) (json.RawMessage, error) {
	if name == "" {
		return nil, nil
	}
	key := namespace + "/" + name
	if spec, found := a.specs.get(key); found {
		return spec, nil
	}
	m, err := store.GetAs[*skiff.PipelineManifest](ctx, a.cfg.Store, store.Key{Kind: manifestsKind, Namespace: namespace, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pipeline's manifest: %w", err)
	}
	spec := specMessage(m.PipelineSpec, m.PlatformSpec)
	a.specs.put(key, spec)
	return spec, nil
}

// runMessage is a run without its tasks.
func (a *API) runMessage(ctx context.Context, r *skiff.Run) (*run, error) {
	m := &run{
		ExperimentID: skiff.ExperimentOf(r), RunID: r.Name, DisplayName: r.Spec.DisplayName, StorageState: query.StorageState(r.Spec.Archived),
		Description: r.Spec.Description, ServiceAccount: r.Spec.ServiceAccount, CreatedAt: stamp(r.CreationTimestamp),
		ScheduledAt: stamp(r.Spec.ScheduledAt), FinishedAt: stamp(r.Status.FinishedAt), State: query.StateOf(r.Status.State),
		RecurringRunID: r.Spec.RecurringRun,
		RuntimeConfig:  &runtimeConfig{Parameters: r.Spec.Parameters, PipelineRoot: r.Spec.PipelineRoot},
	}
	if m.ScheduledAt == nil {
		m.ScheduledAt = m.CreatedAt // it was made to run at once
	}
	if r.Status.State == skiff.StateFailed {
		m.Error = failure(r.Status.Message)
	}
	for _, change := range r.Status.History {
		one := runtimeStatus{UpdateTime: stamp(change.At), State: query.StateOf(change.State)}
		if change.State == skiff.StateFailed {
			one.Error = failure(change.Message)
		}
		m.StateHistory = append(m.StateHistory, one)
	}
	if v := r.Spec.PipelineVersion; v != nil {
		m.PipelineVersionReference = &versionReference{PipelineID: v.PipelineID, PipelineVersionID: v.VersionID}
		return m, nil
	}
	var err error
	m.PipelineSpec, err = a.spec(ctx, r.Namespace, r.Spec.Manifest)
	return m, err
}

// failure is the error of a run or a task that failed.
func failure(message string) *status {
	if message == "" {
		message = "failed"
	}
	return &status{Code: rpcInternal, Message: message}
}

func (a *API) createRun(r *http.Request) (any, error) {
	ctx := r.Context()
	var message run
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	if message.ExperimentID == "" {
		message.ExperimentID = param(r.URL.Query(), "experiment_id")
	}
	source := source{spec: message.PipelineSpec, reference: message.PipelineVersionReference, versionID: message.PipelineVersionID,
		experiment: message.ExperimentID, config: message.RuntimeConfig}
	s, err := a.submission(r, source)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(message.DisplayName) == "" {
		return nil, badRequest("display_name: is empty; give the run a name")
	}
	s.DisplayName, s.Description, s.ServiceAccount = message.DisplayName, message.Description, message.ServiceAccount
	if problems := kfp.ValidateNames(s.DisplayName, "", s.Description); len(problems) > 0 {
		return nil, problems
	}
	made, err := a.cfg.Engine.Submit(ctx, *s)
	if err != nil {
		return nil, err
	}
	return a.runMessage(ctx, made)
}

// source is what a run or a recurring run is made from.
type source struct {
	spec       json.RawMessage
	reference  *versionReference
	versionID  string
	experiment string
	config     *runtimeConfig
	// newest takes the newest version at each run, where none is named.
	newest bool
}

// submission turns what a request says into what the engine takes.
//
// It asks whether a run may be made in the namespace that this comes to.
func (a *API) submission(r *http.Request, from source) (*Submission, error) {
	ctx := r.Context()
	s := &Submission{Namespace: defaultNamespace, Experiment: from.experiment, Filename: "pipeline_spec", Package: from.spec}
	if from.experiment != "" {
		e, err := a.findExperiment(ctx, from.experiment)
		if err != nil {
			return nil, err
		}
		s.Namespace = e.Namespace
	}
	if from.config != nil {
		s.Parameters, s.PipelineRoot = from.config.Parameters, from.config.PipelineRoot
	}
	if from.reference == nil && from.versionID != "" {
		from.reference = &versionReference{PipelineVersionID: from.versionID}
	}
	switch {
	case len(from.spec) > 0 && from.reference != nil:
		return nil, badRequest("want either a pipeline_spec or a pipeline_version_reference, not both")
	case len(from.spec) > 0:
		return s, may(r, s.Namespace, "")
	case from.reference == nil:
		return nil, badRequest("want a pipeline_spec or a pipeline_version_reference")
	}
	p, v, err := a.findVersion(ctx, from.reference.PipelineID, from.reference.PipelineVersionID)
	if err != nil {
		return nil, err
	}
	if from.experiment == "" {
		s.Namespace = v.Namespace
	}
	if err := errors.Join(may(r, s.Namespace, ""), mayRead(ctx, "pipelineversions", v.Namespace, v.Name)); err != nil {
		return nil, err
	}
	s.Filename = kfp.NameOf(&v.ObjectMeta)
	s.PipelineVersion = &skiff.PipelineVersionReference{PipelineID: p.UID, VersionID: v.UID}
	if from.newest && from.reference.PipelineVersionID == "" {
		s.PipelineVersion.VersionID = ""
	}
	s.Package, err = json.Marshal(struct {
		PipelineSpec json.RawMessage `json:"pipelineSpec"`
		PlatformSpec json.RawMessage `json:"platformSpec,omitempty"`
	}{v.Spec.PipelineSpec, v.Spec.PlatformSpec})
	if err != nil {
		return nil, fmt.Errorf("encode pipeline version %s: %w", v.UID, err)
	}
	return s, nil
}

// findRun is the run that a request is about, once it may be.
func (a *API) findRun(r *http.Request, id string) (*skiff.Run, error) {
	found, err := a.lookUpRun(r, id)
	if err == nil {
		err = may(r, found.Namespace, found.Name)
	}
	return found, err
}

func (a *API) lookUpRun(r *http.Request, id string) (*skiff.Run, error) {
	found, err := find[*skiff.Run](r.Context(), a, runsKind, "run", id)
	if err != nil {
		return nil, err
	}
	if want := param(r.URL.Query(), "experiment_id"); want != "" && want != skiff.ExperimentOf(found) {
		return nil, notFound("run", id+" in experiment "+want)
	}
	return found, nil
}

func (a *API) getRun(r *http.Request) (any, error) {
	found, err := a.findRun(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	message, err := a.runMessage(r.Context(), found)
	if err != nil {
		return nil, err
	}
	message.RunDetails, err = a.details(r.Context(), found)
	return message, err
}

func (a *API) deleteRun(r *http.Request) (any, error) {
	found, err := a.findRun(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if !found.Status.State.Terminal() {
		return nil, refuse(rpcPrecondition, "run %s is %s; terminate it first and delete it when it has ended", found.Name, found.Status.State)
	}
	if err := kube.RemoveRun(r.Context(), a.cfg.Store, found.Namespace, found.Name); err != nil {
		if refused, is := errors.AsType[*kube.Error](err); is {
			return nil, refuse(rpcPrecondition, "%s", refused.Message)
		}
		return nil, named(err, "run", found.Name)
	}
	return empty(), nil
}

func (a *API) runAction(r *http.Request) (any, error) {
	id, verb := action(r)
	switch verb {
	case "archive", "unarchive", "terminate", "retry":
	default:
		return nil, noAction("runs", verb)
	}
	found, err := a.findRun(r, id)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	switch verb {
	case "archive":
		err = a.archiveRun(ctx, found, true)
	case "unarchive":
		err = a.archiveRun(ctx, found, false)
	case "terminate":
		err = a.terminate(ctx, found)
	case "retry":
		if err = a.cfg.Engine.Retry(ctx, found.Namespace, found.Name); errors.Is(err, store.ErrConflict) {
			return nil, refuse(rpcAborted, "run %s is %s; only a run that has failed or was cancelled can be retried", found.Name, query.StateOf(found.Status.State))
		}
		err = named(err, "run", found.Name)
	}
	return empty(), err
}

func (a *API) archiveRun(ctx context.Context, found *skiff.Run, away bool) error {
	_, err := change(ctx, a, runsKind, "run", found, func(r *skiff.Run) error {
		if !away && r.Spec.Archived {
			e, err := store.GetAs[*skiff.Experiment](ctx, a.cfg.Store,
				store.Key{Kind: experimentsKind, Namespace: r.Namespace, Name: skiff.ExperimentOf(r)})
			if err == nil && e.Spec.Archived {
				return refuse(rpcPrecondition, "run %s belongs to experiment %s, which is archived; unarchive that first", r.Name, e.Spec.DisplayName)
			}
		}
		r.Spec.Archived = away
		return nil
	})
	return err
}

// terminate asks a run to stop. One that has ended is refused, as upstream does.
func (a *API) terminate(ctx context.Context, found *skiff.Run) error {
	_, err := change(ctx, a, runsKind, "run", found, func(r *skiff.Run) error {
		if r.Status.State.Terminal() {
			return refuse(rpcPrecondition, "run %s has already ended (%s); there is nothing to terminate", r.Name, r.Status.State)
		}
		r.Spec.Cancel = true
		return nil
	})
	return err
}
