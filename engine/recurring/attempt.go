package recurring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// maxMessage bounds what is kept of a refusal; the first problems are the ones to
// mend.
const maxMessage = 2000

// attempt makes the run that is due now, if one is, and returns the revision of
// the store that it saw or made. It looks at everything anew: what it was begun
// for may have changed.
func (c *Controller) attempt(ctx context.Context, key store.Key) (uint64, error) {
	for {
		r, err := store.GetAs[*skiff.RecurringRun](ctx, c.store, key)
		if errors.Is(err, store.ErrNotFound) {
			return c.store.Revision(), nil
		}
		if err != nil {
			return 0, fmt.Errorf("read recurring run %s: %w", key.Name, err)
		}
		now := c.now()
		at := r.Due(now)
		if r.Spec.Disabled || at.IsZero() {
			return revisionOf(r)
		}
		revision, err := c.make(ctx, r, at, now)
		if !errors.Is(err, errChanged) {
			return revision, err
		}
	}
}

// errChanged ends an attempt that somebody else's change came before.
var errChanged = errors.New("the recurring run has changed meanwhile")

// commit writes ops, the last of which updates the recurring run.
func (c *Controller) commit(ctx context.Context, r *skiff.RecurringRun, ops ...store.Op) (uint64, error) {
	revision, err := c.store.Commit(ctx, append(ops, store.Op{Verb: store.Update, Kind: KindName, Object: r})...)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return 0, fmt.Errorf("%w: %w", errChanged, err)
	}
	return revision, err
}

func revisionOf(r *skiff.RecurringRun) (uint64, error) {
	revision, err := strconv.ParseUint(r.ResourceVersion, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the revision of recurring run %s: %w", r.Name, err)
	}
	return revision, nil
}

// make makes the run of a time, or writes down that it was refused.
func (c *Controller) make(ctx context.Context, r *skiff.RecurringRun, at, now time.Time) (uint64, error) {
	run, ops, err := c.prepare(ctx, r, r.RunFor(at), at, now)
	if errors.Is(err, problem.ErrInvalid) {
		return c.refuse(ctx, r, now, err)
	}
	if err != nil {
		return 0, err
	}
	before := r.Status
	r.Status.SettledUntil, r.Status.LastScheduledAt, r.Status.LastRun, r.Status.Message = at, at, run.Name, ""
	r.Status.Runs++
	revision, err := c.commit(ctx, r, ops...)
	if errors.Is(err, store.ErrExists) {
		// The time was settled once already, and the clock or the schedule was set
		// back since: it has its run.
		r.Status = before
		r.Status.SettledUntil = at
		return c.commit(ctx, r)
	}
	if err != nil {
		return 0, fmt.Errorf("make the run of recurring run %s for %s: %w", r.Name, at.Format(time.RFC3339), err)
	}
	c.log.Info("run made by its schedule", "recurring", r.Name, "run", run.Name, "scheduled", at)
	return revision, nil
}

// refuse settles everything that is due: what refuses one run refuses them all.
func (c *Controller) refuse(ctx context.Context, r *skiff.RecurringRun, now time.Time, reason error) (uint64, error) {
	message := strings.ToValidUTF8(reason.Error()[:min(len(reason.Error()), maxMessage)], "")
	level := slog.LevelWarn
	if message == r.Status.Message {
		level = slog.LevelDebug // it was said
	}
	r.Status.SettledUntil, r.Status.Message = r.Overdue(now), message
	r.Status.Note(skiff.ReasonRefused, message, now.UTC())
	revision, err := c.commit(ctx, r)
	if err != nil {
		return 0, fmt.Errorf("note that recurring run %s was refused a run: %w", r.Name, err)
	}
	c.log.Log(ctx, level, "a run that was due is refused", "recurring", r.Name, "error", message)
	return revision, nil
}

// Trigger makes a run of a recurring run at once, whatever its schedule, be it
// enabled or not, and however many are active. store.ErrNotFound where there is
// no such recurring run; a refusal is of class problem.ErrInvalid.
func (c *Controller) Trigger(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	for {
		r, err := store.GetAs[*skiff.RecurringRun](ctx, c.store, keyOf(namespace, name))
		if err != nil {
			return nil, fmt.Errorf("read recurring run %s: %w", name, err)
		}
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make a run id: %w", err)
		}
		run, ops, err := c.prepare(ctx, r, id.String(), time.Time{}, c.now())
		if err != nil {
			return nil, err
		}
		r.Status.LastRun = run.Name
		r.Status.Runs++
		_, err = c.commit(ctx, r, ops...)
		if err == nil {
			c.log.Info("run made at once", "recurring", r.Name, "run", run.Name)
			return run, nil
		}
		if !errors.Is(err, errChanged) {
			return nil, fmt.Errorf("make a run of recurring run %s: %w", name, err)
		}
	}
}

// prepare is a run of a recurring run, and what must be committed for it. at is
// the time on the schedule, zero for a run beside it.
func (c *Controller) prepare(ctx context.Context, r *skiff.RecurringRun, name string, at, now time.Time) (*skiff.Run, []store.Op, error) {
	macros := skiff.Macros{Run: name, Index: r.Status.Runs + 1, Scheduled: at, Now: now}
	if at.IsZero() {
		macros.Scheduled = now
	}
	s := Submission{
		Namespace: r.Namespace, Name: name, DisplayName: r.Spec.DisplayName + "-" + strconv.FormatInt(macros.Index, 10), Experiment: r.Spec.Experiment,
		PipelineRoot: r.Spec.PipelineRoot, ServiceAccount: r.Spec.ServiceAccount, RecurringRun: r.Name, ScheduledAt: at,
	}
	var err error
	if s.Parameters, s.Arguments, err = macros.Expand(r.Spec.Parameters); err != nil {
		return nil, nil, refusal("parameters", "%w", err)
	}
	if err := c.source(ctx, r, &s); err != nil {
		return nil, nil, err
	}
	return c.pipelines.Prepare(ctx, s)
}

func refusal(field, format string, args ...any) error {
	var problems problem.List
	problems.Add(field, format, args...)
	return problems
}

// source finds the pipeline: the one that was handed in, or an uploaded one in
// the version that is named or else is newest now.
func (c *Controller) source(ctx context.Context, r *skiff.RecurringRun, s *Submission) error {
	if r.Spec.PipelineVersion == nil {
		m, err := store.GetAs[*skiff.PipelineManifest](ctx, c.store, store.Key{Kind: manifestsKind, Namespace: r.Namespace, Name: r.Spec.Manifest})
		if errors.Is(err, store.ErrNotFound) {
			return refusal("pipeline_spec", "the pipeline's manifest %s is gone", r.Spec.Manifest)
		}
		if err != nil {
			return fmt.Errorf("read the manifest of recurring run %s: %w", r.Name, err)
		}
		s.Filename = "pipeline_spec"
		return pack(s, m.PipelineSpec, m.PlatformSpec)
	}
	v, err := c.version(ctx, r.Spec.PipelineVersion)
	if err != nil {
		return err
	}
	s.Filename = kfp.NameOf(&v.ObjectMeta)
	s.PipelineVersion = &skiff.PipelineVersionReference{PipelineID: r.Spec.PipelineVersion.PipelineID, VersionID: v.UID}
	return pack(s, v.Spec.PipelineSpec, v.Spec.PlatformSpec)
}

func pack(s *Submission, spec, platform json.RawMessage) (err error) {
	s.Package, err = json.Marshal(struct {
		PipelineSpec json.RawMessage `json:"pipelineSpec"`
		PlatformSpec json.RawMessage `json:"platformSpec,omitempty"`
	}{spec, platform})
	if err != nil {
		return fmt.Errorf("encode the pipeline: %w", err)
	}
	return nil
}

func (c *Controller) version(ctx context.Context, ref *skiff.PipelineVersionReference) (*kfp.PipelineVersion, error) {
	if ref.VersionID != "" {
		v, found, err := top[*kfp.PipelineVersion](ctx, c.store, store.ListOptions{Kind: versionsKind, Index: indexID, Prefix: ref.VersionID, Exact: true})
		if err == nil && !found {
			err = refusal("pipeline_version_reference", "pipeline version %s is gone", ref.VersionID)
		}
		return v, err
	}
	p, found, err := top[*kfp.Pipeline](ctx, c.store, store.ListOptions{Kind: pipelinesKind, Index: indexID, Prefix: ref.PipelineID, Exact: true})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, refusal("pipeline_version_reference", "pipeline %s is gone", ref.PipelineID)
	}
	v, found, err := top[*kfp.PipelineVersion](ctx, c.store, store.ListOptions{Kind: versionsKind, Namespace: p.Namespace, Index: indexPipeline, Prefix: p.Name + separator})
	if err == nil && !found {
		err = refusal("pipeline_version_reference", "pipeline %s has no version any more", kfp.NameOf(&p.ObjectMeta))
	}
	return v, err
}

// top is the first object of a list, where there is one.
func top[T core.Object](ctx context.Context, s store.Interface, opts store.ListOptions) (first T, found bool, err error) {
	opts.Limit = 1
	items, _, err := store.ListAs[T](ctx, s, opts)
	if err != nil {
		return first, false, fmt.Errorf("look for %s %s: %w", opts.Kind, opts.Prefix, err)
	}
	if len(items) == 0 {
		return first, false, nil
	}
	return items[0], true, nil
}
