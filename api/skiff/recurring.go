package skiff

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

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
	// NoCatchup leaves out the times that passed while no run could be made,
	// save the newest; otherwise each gets its run.
	NoCatchup bool `json:"noCatchup,omitempty"`
}

// RecurringRunStatus is what was observed.
type RecurringRunStatus struct {
	// UpdatedAt is when the spec last changed.
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// LastScheduledAt is the time on the schedule that the newest run was made
	// for, LastRun that run's name.
	LastScheduledAt time.Time `json:"lastScheduledAt,omitzero"`
	LastRun         string    `json:"lastRun,omitempty"`
	// Runs counts the runs that were made.
	Runs int64 `json:"runs,omitempty"`
	// Message says why no run could be made, where that is so.
	Message string `json:"message,omitempty"`
}

// Schedule says when runs are made: by a cron expression or at an interval.
type Schedule struct {
	// Cron has six fields, seconds first, or is a descriptor such as "@every 1h".
	// Times are UTC.
	Cron string `json:"cron,omitempty"`
	// IntervalSeconds is the time between two runs.
	IntervalSeconds int64 `json:"intervalSeconds,omitempty"`
	// StartTime and EndTime bound the times; zero for none.
	StartTime time.Time `json:"startTime,omitzero"`
	EndTime   time.Time `json:"endTime,omitzero"`
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

// Validate says everything that is wrong with a schedule.
func (s *Schedule) Validate() problem.List {
	var problems problem.List
	switch {
	case s.Cron != "" && s.IntervalSeconds != 0:
		problems.Add("trigger", "has a cron schedule and a periodic one; want one of them")
	case s.Cron != "":
		if _, err := s.parse(); err != nil {
			problems.Add("trigger.cron_schedule.cron", "%w", err).Hint = "six fields (second minute hour day month weekday), as in \"0 30 9 * * 1-5\", or @every 1h"
		}
	case s.IntervalSeconds < 1:
		problems.Add("trigger.periodic_schedule.interval_second", "is %d; want at least one second", s.IntervalSeconds)
	case s.IntervalSeconds > maxInterval:
		problems.Add("trigger.periodic_schedule.interval_second", "is %d; want at most %d, a hundred years", s.IntervalSeconds, int64(maxInterval))
	}
	if !s.EndTime.IsZero() && !s.StartTime.IsZero() && !s.EndTime.After(s.StartTime) {
		problems.Add("trigger.end_time", "%s is not after the start, %s", s.EndTime.Format(time.RFC3339), s.StartTime.Format(time.RFC3339))
	}
	return problems
}

// maxInterval keeps an interval within what a duration holds.
const maxInterval = 100 * 366 * 24 * 3600

func (s *Schedule) parse() (cron.Schedule, error) {
	if strings.Contains(s.Cron, "TZ=") {
		// The parser knows them; but times here are UTC, as on the cluster.
		return nil, fmt.Errorf("cron expression %q: a time zone is not taken; times are UTC", s.Cron)
	}
	parser := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	schedule, err := parser.Parse(s.Cron)
	if err != nil {
		return nil, fmt.Errorf("cron expression %q: %w", s.Cron, err)
	}
	return schedule, nil
}

// Next is the first time on the schedule after the given one; created is when
// the recurring run was made, from which an interval without a start counts.
// It is zero where there is none, and where the schedule is not valid.
func (s *Schedule) Next(after, created time.Time) time.Time {
	origin := created
	if !s.StartTime.IsZero() {
		origin = s.StartTime
	}
	var next time.Time
	switch {
	case s.Cron != "":
		schedule, err := s.parse()
		if err != nil {
			return time.Time{}
		}
		from := after.UTC()
		if before := origin.UTC().Add(-time.Nanosecond); from.Before(before) {
			from = before
		}
		next = schedule.Next(from)
	case s.IntervalSeconds > 0:
		step := time.Duration(s.IntervalSeconds) * time.Second
		// Without a start, the first run is one interval after it was made.
		next = origin
		if s.StartTime.IsZero() {
			next = next.Add(step)
		}
		if !next.After(after) {
			next = next.Add((after.Sub(next)/step + 1) * step)
		}
	}
	if next.IsZero() || (!s.EndTime.IsZero() && next.After(s.EndTime)) {
		return time.Time{}
	}
	return next.UTC()
}
