package kube

import (
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/view"
)

// kfpResources are the kinds that the API of Kubeflow Pipelines writes: here
// they are read, as kubectl and the command line do. What deletes or changes one
// has consequences for others (runs, versions), which that API sees to.
func kfpResources() []Resource {
	return []Resource{experiments(), recurringRuns(), pipelines(), pipelineVersions()}
}

// of makes a column's value of a function of one kind.
func of[T core.Object](f func(T) any) func(core.Object, time.Time) any {
	return func(o core.Object, _ time.Time) any { return f(o.(T)) }
}

func experiments() Resource {
	return Resource{
		Group: skiffGroup, Version: skiffVersion, Plural: "experiments", Singular: "experiment", Kind: skiff.ExperimentKind,
		StoreKind: "experiments.skiff.dev", New: func() core.Object { return &skiff.Experiment{} },
		Fields: map[string]Field{
			"spec.displayName": {Value: func(o core.Object) string { return o.(*skiff.Experiment).Spec.DisplayName }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Display Name", Type: "string", Value: of(func(e *skiff.Experiment) any { return e.Spec.DisplayName })},
			{Name: "Archived", Type: "string", Value: of(func(e *skiff.Experiment) any { return strconv.FormatBool(e.Spec.Archived) })},
			ageColumn(),
			{Name: "Description", Type: "string", Wide: true, Value: of(func(e *skiff.Experiment) any { return e.Spec.Description })},
		},
	}
}

func recurringRuns() Resource {
	return Resource{
		Group: skiffGroup, Version: skiffVersion, Plural: "recurringruns", Singular: "recurringrun", Kind: skiff.RecurringRunKind,
		StoreKind: "recurringruns.skiff.dev", New: func() core.Object { return &skiff.RecurringRun{} },
		Fields: map[string]Field{
			// "enabled" has times to come, "ended" has none or is disabled; so that
			// the former are found however many of the latter there are.
			"status.schedule": {Index: "enabled", Value: func(o core.Object) string {
				if r := o.(*skiff.RecurringRun); r.Spec.Disabled || r.Next().IsZero() {
					return "ended"
				}
				return "enabled"
			}},
			"spec.experiment": {Index: "experiment", Value: func(o core.Object) string { return o.(*skiff.RecurringRun).Spec.Experiment }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Display Name", Type: "string", Value: of(func(r *skiff.RecurringRun) any { return r.Spec.DisplayName })},
			{Name: "Schedule", Type: "string", Value: of(func(r *skiff.RecurringRun) any { return schedule(&r.Spec.Schedule) })},
			{Name: "Enabled", Type: "string", Value: of(func(r *skiff.RecurringRun) any { return strconv.FormatBool(!r.Spec.Disabled) })},
			{Name: "Runs", Type: "integer", Value: of(func(r *skiff.RecurringRun) any { return r.Status.Runs })},
			{Name: "Next", Type: "string", Value: func(o core.Object, now time.Time) any { return next(o.(*skiff.RecurringRun), now) }},
			{Name: "Last", Type: "string", Value: func(o core.Object, now time.Time) any {
				return elapsed(o.(*skiff.RecurringRun).Status.LastScheduledAt, time.Time{}, now)
			}},
			ageColumn(),
			{Name: "Message", Type: "string", Wide: true, Value: of(func(r *skiff.RecurringRun) any { return r.Status.Message })},
		},
	}
}

// next is how long it is until a recurring run's next run is due.
func next(r *skiff.RecurringRun, now time.Time) string {
	at := r.Next()
	switch {
	case r.Spec.Disabled || at.IsZero():
		return ""
	case at.After(now):
		return view.Duration(at.Sub(now))
	}
	return "due"
}

func schedule(s *skiff.Schedule) string {
	if s.Cron != "" {
		return s.Cron
	}
	return "every " + (time.Duration(s.IntervalSeconds) * time.Second).String()
}

func pipelines() Resource {
	return Resource{
		Group: "pipelines.kubeflow.org", Version: "v2beta1", Plural: "pipelines", Singular: "pipeline", Kind: kfp.PipelineKind,
		StoreKind: "pipelines.pipelines.kubeflow.org", New: func() core.Object { return &kfp.Pipeline{} },
		Columns: []Column{
			nameColumn(),
			{Name: "Display Name", Type: "string", Value: of(func(p *kfp.Pipeline) any {
				if p.Spec.DisplayName != "" {
					return p.Spec.DisplayName
				}
				return kfp.NameOf(&p.ObjectMeta)
			})},
			{Name: "ID", Type: "string", Value: of(func(p *kfp.Pipeline) any { return p.UID })},
			ageColumn(),
			{Name: "Description", Type: "string", Wide: true, Value: of(func(p *kfp.Pipeline) any { return p.Spec.Description })},
		},
	}
}

func pipelineVersions() Resource {
	return Resource{
		Group: "pipelines.kubeflow.org", Version: "v2beta1", Plural: "pipelineversions", Singular: "pipelineversion", Kind: kfp.PipelineVersionKind,
		StoreKind: "pipelineversions.pipelines.kubeflow.org", New: func() core.Object { return &kfp.PipelineVersion{} },
		Fields: map[string]Field{
			"spec.pipelineName": {Value: func(o core.Object) string { return o.(*kfp.PipelineVersion).Spec.PipelineName }},
		},
		Columns: []Column{
			nameColumn(),
			{Name: "Pipeline", Type: "string", Value: of(func(v *kfp.PipelineVersion) any { return v.Spec.PipelineName })},
			{Name: "Version", Type: "string", Value: of(func(v *kfp.PipelineVersion) any { return kfp.NameOf(&v.ObjectMeta) })},
			{Name: "ID", Type: "string", Value: of(func(v *kfp.PipelineVersion) any { return v.UID })},
			ageColumn(),
			{Name: "Description", Type: "string", Wide: true, Value: of(func(v *kfp.PipelineVersion) any { return v.Spec.Description })},
		},
	}
}
