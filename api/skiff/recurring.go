package skiff

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
)

// RecurringRun makes runs on a schedule, as in KFP. Its name is KFP's
// recurring_run_id.
type RecurringRun struct {
	core.TypeMeta
	core.ObjectMeta `json:"metadata"`
	Spec            RecurringRunSpec   `json:"spec"`
	Status          RecurringRunStatus `json:"status,omitzero"`
}

// RecurringRunSpec is what was asked for. Exactly one of Manifest and
// PipelineVersion is set, and one of Schedule's two forms.
type RecurringRunSpec struct {
	DisplayName string `json:"displayName"`
	Description string `json:"description,omitempty"`
	// Experiment names the Experiment of the runs.
	Experiment string `json:"experiment"`
	// Manifest names a PipelineManifest in the namespace.
	Manifest string `json:"manifest,omitempty"`
	// PipelineVersion names an uploaded pipeline; without a version, each run
	// takes the version that is newest then.
	PipelineVersion *PipelineVersionReference  `json:"pipelineVersion,omitempty"`
	Parameters      map[string]json.RawMessage `json:"parameters,omitempty"`
	PipelineRoot    string                     `json:"pipelineRoot,omitempty"`
	ServiceAccount  string                     `json:"serviceAccount,omitempty"`
	Schedule        Schedule                   `json:"schedule"`
	// Disabled keeps the schedule from making runs.
	Disabled bool `json:"disabled,omitempty"`
	// MaxConcurrency is the most runs of it that are active at once, 1 to 10.
	MaxConcurrency int `json:"maxConcurrency"`
	// NoCatchup leaves out the times that passed while no run could be made (it was
	// disabled, the machine was off, MaxConcurrency runs were active), save the
	// newest; otherwise each gets its run.
	NoCatchup bool `json:"noCatchup,omitempty"`
}

// RecurringRunStatus is what was observed.
type RecurringRunStatus struct {
	// UpdatedAt is when the spec last changed.
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// SettledUntil moves forward with every time on the schedule that is dealt
	// with: all up to it had their run, were refused, or were left out. A change of
	// the schedule sets it to the moment of the change, so that the new schedule
	// counts from there. Zero before the first.
	SettledUntil time.Time `json:"settledUntil,omitzero"`
	// LastScheduledAt is the time on the schedule that the newest run was made
	// for, LastRun that run's name.
	LastScheduledAt time.Time `json:"lastScheduledAt,omitzero"`
	LastRun         string    `json:"lastRun,omitempty"`
	// Runs counts the runs that were made, those that somebody asked for at once
	// among them.
	Runs int64 `json:"runs,omitempty"`
	// Message says why the newest run that was due could not be made; empty where
	// it could.
	Message string `json:"message,omitempty"`
	// Events are the newest things of note, oldest first; see Note.
	Events []RecurringRunEvent `json:"events,omitempty"`
}

// RecurringRunEvent is something that happened once or several times in a row.
type RecurringRunEvent struct {
	// Reason is for machines, Message for people.
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Count   int64     `json:"count"`
}

// ReasonRefused is the reason of an event where a run that was due was refused.
const ReasonRefused = "Refused"

// maxEvents bounds what a recurring run remembers.
const maxEvents = 10

// Note writes an event; one that says what the newest says is counted with it.
func (s *RecurringRunStatus) Note(reason, message string, at time.Time) {
	if n := len(s.Events); n > 0 && s.Events[n-1].Reason == reason && s.Events[n-1].Message == message {
		s.Events[n-1].Last = at
		s.Events[n-1].Count++
		return
	}
	s.Events = append(s.Events, RecurringRunEvent{Reason: reason, Message: message, First: at, Last: at, Count: 1})
	if drop := len(s.Events) - maxEvents; drop > 0 {
		s.Events = append([]RecurringRunEvent(nil), s.Events[drop:]...)
	}
}

// Bounds of a recurring run, as KFP has them.
const (
	DefaultMaxConcurrency = 1
	maxConcurrency        = 10
)

// Default fills in what was left out.
func (r *RecurringRun) Default() {
	if r.Spec.MaxConcurrency == 0 {
		r.Spec.MaxConcurrency = DefaultMaxConcurrency
	}
	if r.Spec.Experiment == "" {
		r.Spec.Experiment = DefaultExperiment(r.Namespace)
	}
}

// Validate says everything that is wrong with a recurring run by itself. That
// what it names exists is for others to check.
func (r *RecurringRun) Validate() problem.List {
	var problems problem.List
	spec := &r.Spec
	if spec.DisplayName == "" {
		problems.Add("display_name", "is empty")
	}
	if spec.MaxConcurrency < 1 || spec.MaxConcurrency > maxConcurrency {
		problems.Add("max_concurrency", "is %d; want 1 to %d", spec.MaxConcurrency, maxConcurrency)
	}
	if (spec.Manifest == "") == (spec.PipelineVersion == nil) {
		problems.Add("pipeline_spec", "want either a pipeline_spec or a pipeline_version_reference")
	}
	return append(problems, spec.Schedule.Validate()...)
}

// Next is the first time on the schedule that is not settled yet, whether it has
// come or not; zero where there is none any more.
func (r *RecurringRun) Next() time.Time {
	s := &r.Spec.Schedule
	from := r.Status.SettledUntil
	if from.IsZero() {
		from = s.StartTime
	}
	if from.IsZero() {
		from = r.CreationTimestamp
	}
	if from.Before(s.StartTime) {
		from = s.StartTime
	}
	return s.Next(from)
}

// Due is the time on the schedule that a run is to be made for at the given
// moment: the first that is not settled, or with NoCatchup the newest that has
// come. It is zero where none has come. It looks neither at Disabled nor at how
// many runs are active.
func (r *RecurringRun) Due(now time.Time) time.Time {
	next := r.Next()
	if next.IsZero() || next.After(now) {
		return time.Time{}
	}
	if r.Spec.NoCatchup {
		return r.Spec.Schedule.newest(next, now)
	}
	return next
}

// Overdue is the newest time on the schedule that has come at the given moment
// and is not settled; zero where none is. See Due.
func (r *RecurringRun) Overdue(now time.Time) time.Time {
	next := r.Next()
	if next.IsZero() || next.After(now) {
		return time.Time{}
	}
	return r.Spec.Schedule.newest(next, now)
}

// RunFor is the name of the run that a recurring run makes for a time on its
// schedule: always the same one, so that it cannot be made twice.
func (r *RecurringRun) RunFor(at time.Time) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(APIVersion+"/recurringruns/"+r.UID+"/"+at.UTC().Format(time.RFC3339Nano))).String()
}
