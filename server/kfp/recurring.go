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

// The published words for whether a recurring run makes runs.
const (
	modeEnable  = "ENABLE"
	modeDisable = "DISABLE"
)

// listRecurringRunsResponse has one key in camelCase, as upstream's server
// writes it and the clients read it.
type listRecurringRunsResponse struct {
	RecurringRuns []*recurringRun `json:"recurringRuns,omitempty"`
	TotalSize     int             `json:"total_size,omitempty"`
	NextPageToken string          `json:"next_page_token,omitempty"`
}

func recurringListing() *listing {
	of := func(f func(*skiff.RecurringRun) string) query.Field {
		return query.Text(func(o core.Object) string { return f(o.(*skiff.RecurringRun)) })
	}
	id, display := query.Text(nameField), of(func(r *skiff.RecurringRun) string { return r.Spec.DisplayName })
	return &listing{
		Kind: recurringRunsKind, ScopeField: "experiment_id", Limits: few(),
		Fields: map[string]query.Field{
			"recurring_run_id": id, "id": id, "display_name": display, "name": display,
			"created_at":    query.Moment(createdAt),
			"updated_at":    query.Moment(func(o core.Object) time.Time { return updatedAt(o.(*skiff.RecurringRun)) }),
			"description":   of(func(r *skiff.RecurringRun) string { return r.Spec.Description }),
			"namespace":     query.Text(namespaceField),
			"experiment_id": of(func(r *skiff.RecurringRun) string { return r.Spec.Experiment }),
			"status":        query.Enum(func(o core.Object) string { return recurringStatus(o.(*skiff.RecurringRun)) }),
		},
		Spans: func(q *query.Query) []query.Span {
			if experiment, i := q.Predicate(query.Equals, "experiment_id"); i >= 0 {
				return []query.Span{{Name: "experiment", Index: byExperiment, Prefix: experiment, Exact: true, Covered: []int{i}, Narrow: true}}
			}
			return []query.Span{{Name: "all"}}
		},
	}
}

func updatedAt(r *skiff.RecurringRun) time.Time {
	if r.Status.UpdatedAt.IsZero() {
		return r.CreationTimestamp
	}
	return r.Status.UpdatedAt
}

func recurringStatus(r *skiff.RecurringRun) string {
	if r.Spec.Disabled {
		return "DISABLED"
	}
	return "ENABLED"
}

func (a *API) recurringMessage(ctx context.Context, r *skiff.RecurringRun) (*recurringRun, error) {
	m := &recurringRun{
		RecurringRunID: r.Name, DisplayName: r.Spec.DisplayName, Description: r.Spec.Description, ServiceAccount: r.Spec.ServiceAccount,
		RuntimeConfig:  &runtimeConfig{Parameters: r.Spec.Parameters, PipelineRoot: r.Spec.PipelineRoot},
		MaxConcurrency: int64(r.Spec.MaxConcurrency), Mode: modeEnable, CreatedAt: stamp(r.CreationTimestamp), UpdatedAt: stamp(updatedAt(r)),
		Status: recurringStatus(r), NoCatchup: r.Spec.NoCatchup, Namespace: r.Namespace, ExperimentID: r.Spec.Experiment,
	}
	if r.Spec.Disabled {
		m.Mode = modeDisable
	}
	if r.Status.Message != "" {
		m.Error = failure(r.Status.Message)
	}
	s := &r.Spec.Schedule
	if s.Cron != "" {
		m.Trigger = &trigger{CronSchedule: &cronSchedule{Cron: s.Cron, StartTime: stamp(s.StartTime), EndTime: stamp(s.EndTime)}}
	} else {
		m.Trigger = &trigger{PeriodicSchedule: &periodicSchedule{IntervalSecond: s.IntervalSeconds, StartTime: stamp(s.StartTime), EndTime: stamp(s.EndTime)}}
	}
	if v := r.Spec.PipelineVersion; v != nil {
		m.PipelineVersionReference = &versionReference{PipelineID: v.PipelineID, PipelineVersionID: v.VersionID}
		return m, nil
	}
	var err error
	m.PipelineSpec, err = a.spec(ctx, r.Namespace, r.Spec.Manifest)
	return m, err
}

func (a *API) listRecurringRuns(r *http.Request) (any, error) {
	ctx := r.Context()
	page, err := a.inExperiment(r, recurringListing())
	if err != nil {
		return nil, err
	}
	answer := &listRecurringRunsResponse{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		message, err := a.recurringMessage(ctx, obj.(*skiff.RecurringRun))
		if err != nil {
			return nil, err
		}
		answer.RecurringRuns = append(answer.RecurringRuns, message)
	}
	return answer, nil
}

// scheduleOf reads a trigger.
func scheduleOf(t *trigger) (skiff.Schedule, error) {
	switch {
	case t == nil || (t.CronSchedule == nil && t.PeriodicSchedule == nil):
		return skiff.Schedule{}, badRequest("trigger: want a cron_schedule or a periodic_schedule")
	case t.CronSchedule != nil && t.PeriodicSchedule != nil:
		return skiff.Schedule{}, badRequest("trigger: want a cron_schedule or a periodic_schedule, not both")
	case t.CronSchedule != nil:
		if t.CronSchedule.Cron == "" {
			return skiff.Schedule{}, badRequest("trigger.cron_schedule.cron: is empty")
		}
		return skiff.Schedule{Cron: t.CronSchedule.Cron, StartTime: timeOf(t.CronSchedule.StartTime), EndTime: timeOf(t.CronSchedule.EndTime)}, nil
	default:
		return skiff.Schedule{IntervalSeconds: t.PeriodicSchedule.IntervalSecond,
			StartTime: timeOf(t.PeriodicSchedule.StartTime), EndTime: timeOf(t.PeriodicSchedule.EndTime)}, nil
	}
}

func disabledOf(mode string) (bool, error) {
	switch mode {
	case modeEnable:
		return false, nil
	case modeDisable, "", "MODE_UNSPECIFIED":
		return true, nil
	}
	return false, badRequest("mode %.40q: want %s or %s", mode, modeEnable, modeDisable)
}

func (a *API) createRecurringRun(r *http.Request) (any, error) {
	ctx := r.Context()
	var message recurringRun
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	if message.Mode == "" || message.Mode == "MODE_UNSPECIFIED" {
		return nil, badRequest("mode: want %s or %s", modeEnable, modeDisable)
	}
	made := &skiff.RecurringRun{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.RecurringRunKind},
		ObjectMeta: core.ObjectMeta{Name: uuid.NewString()},
	}
	ops, err := a.applyRecurring(r, made, &message)
	if err != nil {
		return nil, err
	}
	if _, err := a.cfg.Store.Commit(ctx, append(ops, store.Op{Verb: store.Create, Kind: recurringRunsKind, Object: made})...); err != nil {
		return nil, named(err, "recurring run", made.Name)
	}
	return a.recurringMessage(ctx, made)
}

// applyRecurring writes a whole message into an object, checks everything, and
// returns what else must be stored with it.
func (a *API) applyRecurring(r *http.Request, to *skiff.RecurringRun, m *recurringRun) ([]store.Op, error) {
	ctx := r.Context()
	schedule, err := scheduleOf(m.Trigger)
	if err != nil {
		return nil, err
	}
	disabled, err := disabledOf(m.Mode)
	if err != nil {
		return nil, err
	}
	s, err := a.submission(r, source{spec: m.PipelineSpec, reference: m.PipelineVersionReference, versionID: m.PipelineVersionID,
		experiment: m.ExperimentID, config: m.RuntimeConfig, newest: true})
	if err != nil {
		return nil, err
	}
	to.Namespace = s.Namespace
	to.Spec = skiff.RecurringRunSpec{
		DisplayName: strings.TrimSpace(m.DisplayName), Description: m.Description, Experiment: s.Experiment,
		PipelineVersion: s.PipelineVersion, Parameters: s.Parameters, PipelineRoot: s.PipelineRoot, ServiceAccount: m.ServiceAccount,
		Schedule: schedule, Disabled: disabled, MaxConcurrency: int(m.MaxConcurrency), NoCatchup: m.NoCatchup,
	}
	to.Default()
	s.DisplayName, s.Experiment = to.Spec.DisplayName, to.Spec.Experiment
	var ops []store.Op
	if s.PipelineVersion == nil {
		manifest, err := a.cfg.Engine.Inspect(ctx, s.Namespace, s.Filename, s.Package)
		if err != nil {
			return nil, err
		}
		to.Spec.Manifest = manifest.Name
		_, err = a.cfg.Store.Get(ctx, store.Key{Kind: manifestsKind, Namespace: manifest.Namespace, Name: manifest.Name})
		if errors.Is(err, store.ErrNotFound) {
			ops = append(ops, store.Op{Verb: store.Put, Kind: manifestsKind, Object: manifest})
		} else if err != nil {
			return nil, fmt.Errorf("look for the pipeline's manifest: %w", err)
		}
	}
	problems := to.Validate()
	if problems = append(problems, kfp.ValidateNames("-", to.Spec.DisplayName, to.Spec.Description)...); len(problems) > 0 {
		return nil, problems
	}
	// What would be refused at each of its runs is refused now.
	now := time.Now()
	if s.Parameters, s.Arguments, err = (skiff.Macros{Run: to.Name, Index: 1, Scheduled: now, Now: now}).Expand(s.Parameters); err != nil {
		return nil, badRequest("runtime_config.parameters: %v", err)
	}
	return ops, a.cfg.Engine.Check(ctx, *s)
}

func (a *API) findRecurring(r *http.Request, id string) (*skiff.RecurringRun, error) {
	found, err := find[*skiff.RecurringRun](r.Context(), a, recurringRunsKind, "recurring run", id)
	if err == nil {
		err = may(r, found.Namespace, found.Name)
	}
	return found, err
}

func (a *API) getRecurringRun(r *http.Request) (any, error) {
	found, err := a.findRecurring(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return a.recurringMessage(r.Context(), found)
}

// updateRecurringRun changes the fields that the body has; the published API
// has no such method.
func (a *API) updateRecurringRun(r *http.Request) (any, error) {
	ctx := r.Context()
	var message recurringRun
	data, err := body(r, &message)
	if err != nil {
		return nil, err
	}
	found, err := a.findRecurring(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if (message.RecurringRunID != "" && message.RecurringRunID != found.Name) || (message.Namespace != "" && message.Namespace != found.Namespace) {
		return nil, badRequest("the id and the namespace of a recurring run cannot be changed")
	}
	whole, err := a.recurringMessage(ctx, found)
	if err != nil {
		return nil, err
	}
	given := members(data)
	setIf(given["display_name"], &whole.DisplayName, message.DisplayName)
	setIf(given["description"], &whole.Description, message.Description)
	setIf(given["runtime_config"], &whole.RuntimeConfig, message.RuntimeConfig)
	setIf(given["service_account"], &whole.ServiceAccount, message.ServiceAccount)
	setIf(given["max_concurrency"], &whole.MaxConcurrency, message.MaxConcurrency)
	setIf(given["trigger"], &whole.Trigger, message.Trigger)
	setIf(given["mode"], &whole.Mode, message.Mode)
	setIf(given["no_catchup"], &whole.NoCatchup, message.NoCatchup)
	setIf(given["experiment_id"], &whole.ExperimentID, message.ExperimentID)
	if given["pipeline_spec"] || given["pipeline_version_reference"] || given["pipeline_version_id"] {
		whole.PipelineSpec, whole.PipelineVersionReference = message.PipelineSpec, message.PipelineVersionReference
		whole.PipelineVersionID = message.PipelineVersionID
	}
	after := &skiff.RecurringRun{ObjectMeta: found.ObjectMeta}
	ops, err := a.applyRecurring(r, after, whole)
	if err != nil {
		return nil, err
	}
	if after.Namespace != found.Namespace {
		return nil, badRequest("experiment_id: is of another namespace")
	}
	if _, err := a.cfg.Store.Commit(ctx, ops...); err != nil {
		return nil, err
	}
	found, err = change(ctx, a, recurringRunsKind, "recurring run", found, func(r *skiff.RecurringRun) error {
		now := time.Now().UTC()
		if !r.Spec.Schedule.Equal(&after.Spec.Schedule) {
			// The new one counts from now on: what it would have asked for before
			// this was missed by nobody.
			r.Status.SettledUntil = now
		}
		r.Spec, r.Status.UpdatedAt, r.Status.Message = after.Spec, now, ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.recurringMessage(ctx, found)
}

// deleteRecurringRun leaves its runs as they are. propagation_policy is about
// objects of a cluster and is accepted.
func (a *API) deleteRecurringRun(r *http.Request) (any, error) {
	found, err := a.findRecurring(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	_, err = a.cfg.Store.Commit(r.Context(), store.Op{Verb: store.Delete, Kind: recurringRunsKind,
		Key: store.Key{Kind: recurringRunsKind, Namespace: found.Namespace, Name: found.Name}})
	return empty(), named(err, "recurring run", found.Name)
}

// actionTrigger makes a run at once; the published API has no such method.
const actionTrigger = "trigger"

func (a *API) recurringRunAction(r *http.Request) (any, error) {
	id, verb := action(r)
	if verb != "enable" && verb != "disable" && verb != actionTrigger {
		return nil, noAction("recurring runs", verb)
	}
	found, err := a.findRecurring(r, id)
	if err != nil {
		return nil, err
	}
	if verb == actionTrigger {
		made, err := a.cfg.Engine.Trigger(r.Context(), found.Namespace, found.Name)
		if err != nil {
			return nil, named(err, "recurring run", found.Name)
		}
		return a.runMessage(r.Context(), made)
	}
	if verb == "enable" {
		e, err := store.GetAs[*skiff.Experiment](r.Context(), a.cfg.Store,
			store.Key{Kind: experimentsKind, Namespace: found.Namespace, Name: found.Spec.Experiment})
		if err == nil && e.Spec.Archived {
			return nil, refuse(rpcPrecondition, "experiment %s is archived; unarchive it first", e.Spec.DisplayName)
		}
	}
	return empty(), a.setDisabled(r.Context(), found, verb == "disable")
}

func (a *API) setDisabled(ctx context.Context, found *skiff.RecurringRun, disabled bool) error {
	_, err := change(ctx, a, recurringRunsKind, "recurring run", found, func(r *skiff.RecurringRun) error {
		if r.Spec.Disabled == disabled {
			return store.ErrUnchanged
		}
		r.Spec.Disabled, r.Status.UpdatedAt = disabled, time.Now().UTC()
		return nil
	})
	return err
}
