package kfp

import (
	"encoding/json"
	"time"
)

// The messages of kubeflow.pipelines.backend.api.v2beta1, as JSON: snake_case
// names, zero values left out, 64-bit numbers as strings. The tags are the
// published field names; decode takes their camelCase forms as well.

type experiment struct {
	ExperimentID     string     `json:"experiment_id,omitempty"`
	DisplayName      string     `json:"display_name,omitempty"`
	Description      string     `json:"description,omitempty"`
	CreatedAt        *time.Time `json:"created_at,omitempty"`
	Namespace        string     `json:"namespace,omitempty"`
	StorageState     string     `json:"storage_state,omitempty"`
	LastRunCreatedAt *time.Time `json:"last_run_created_at,omitempty"`
}

type pipeline struct {
	PipelineID  string            `json:"pipeline_id,omitempty"`
	DisplayName string            `json:"display_name,omitempty"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	CreatedAt   *time.Time        `json:"created_at,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Error       *status           `json:"error,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

type pipelineVersion struct {
	PipelineID        string            `json:"pipeline_id,omitempty"`
	PipelineVersionID string            `json:"pipeline_version_id,omitempty"`
	DisplayName       string            `json:"display_name,omitempty"`
	Name              string            `json:"name,omitempty"`
	Description       string            `json:"description,omitempty"`
	CreatedAt         *time.Time        `json:"created_at,omitempty"`
	PackageURL        *packageURL       `json:"package_url,omitempty"`
	CodeSourceURL     string            `json:"code_source_url,omitempty"`
	PipelineSpec      json.RawMessage   `json:"pipeline_spec,omitempty"`
	Error             *status           `json:"error,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"`
}

type packageURL struct {
	PipelineURL string `json:"pipeline_url,omitempty"`
}

type createPipelineAndVersion struct {
	Pipeline        *pipeline        `json:"pipeline,omitempty"`
	PipelineVersion *pipelineVersion `json:"pipeline_version,omitempty"`
}

type versionReference struct {
	PipelineID        string `json:"pipeline_id,omitempty"`
	PipelineVersionID string `json:"pipeline_version_id,omitempty"`
}

type runtimeConfig struct {
	Parameters   map[string]json.RawMessage `json:"parameters,omitempty"`
	PipelineRoot string                     `json:"pipeline_root,omitempty"`
}

type run struct {
	ExperimentID             string                     `json:"experiment_id,omitempty"`
	RunID                    string                     `json:"run_id,omitempty"`
	DisplayName              string                     `json:"display_name,omitempty"`
	StorageState             string                     `json:"storage_state,omitempty"`
	Description              string                     `json:"description,omitempty"`
	PipelineVersionID        string                     `json:"pipeline_version_id,omitempty"`
	PipelineSpec             json.RawMessage            `json:"pipeline_spec,omitempty"`
	PipelineVersionReference *versionReference          `json:"pipeline_version_reference,omitempty"`
	RuntimeConfig            *runtimeConfig             `json:"runtime_config,omitempty"`
	ServiceAccount           string                     `json:"service_account,omitempty"`
	CreatedAt                *time.Time                 `json:"created_at,omitempty"`
	ScheduledAt              *time.Time                 `json:"scheduled_at,omitempty"`
	FinishedAt               *time.Time                 `json:"finished_at,omitempty"`
	State                    string                     `json:"state,omitempty"`
	Error                    *status                    `json:"error,omitempty"`
	RunDetails               *runDetails                `json:"run_details,omitempty"`
	RecurringRunID           string                     `json:"recurring_run_id,omitempty"`
	StateHistory             []runtimeStatus            `json:"state_history,omitempty"`
	PluginsInput             map[string]json.RawMessage `json:"plugins_input,omitempty"`
	PluginsOutput            map[string]json.RawMessage `json:"plugins_output,omitempty"`
}

type runtimeStatus struct {
	UpdateTime *time.Time `json:"update_time,omitempty"`
	State      string     `json:"state,omitempty"`
	Error      *status    `json:"error,omitempty"`
}

type runDetails struct {
	PipelineContextID    string       `json:"pipeline_context_id,omitempty"`
	PipelineRunContextID string       `json:"pipeline_run_context_id,omitempty"`
	TaskDetails          []taskDetail `json:"task_details,omitempty"`
}

type taskDetail struct {
	RunID          string                  `json:"run_id,omitempty"`
	TaskID         string                  `json:"task_id,omitempty"`
	DisplayName    string                  `json:"display_name,omitempty"`
	CreateTime     *time.Time              `json:"create_time,omitempty"`
	StartTime      *time.Time              `json:"start_time,omitempty"`
	EndTime        *time.Time              `json:"end_time,omitempty"`
	ExecutorDetail *executorDetail         `json:"executor_detail,omitempty"`
	State          string                  `json:"state,omitempty"`
	ExecutionID    string                  `json:"execution_id,omitempty"`
	Error          *status                 `json:"error,omitempty"`
	Inputs         map[string]artifactList `json:"inputs,omitempty"`
	Outputs        map[string]artifactList `json:"outputs,omitempty"`
	ParentTaskID   string                  `json:"parent_task_id,omitempty"`
	StateHistory   []runtimeStatus         `json:"state_history,omitempty"`
	PodName        string                  `json:"pod_name,omitempty"`
	ChildTasks     []childTask             `json:"child_tasks,omitempty"`
}

type executorDetail struct {
	MainJob                   string   `json:"main_job,omitempty"`
	PreCachingCheckJob        string   `json:"pre_caching_check_job,omitempty"`
	FailedMainJobs            []string `json:"failed_main_jobs,omitempty"`
	FailedPreCachingCheckJobs []string `json:"failed_pre_caching_check_jobs,omitempty"`
}

// artifactList holds the artifacts' names: the published message has 64-bit
// numbers there, as strings, which are opaque to clients.
type artifactList struct {
	ArtifactIDs []string `json:"artifact_ids,omitempty"`
}

type childTask struct {
	TaskID  string `json:"task_id,omitempty"`
	PodName string `json:"pod_name,omitempty"`
}

type recurringRun struct {
	RecurringRunID           string                     `json:"recurring_run_id,omitempty"`
	DisplayName              string                     `json:"display_name,omitempty"`
	Description              string                     `json:"description,omitempty"`
	PipelineVersionID        string                     `json:"pipeline_version_id,omitempty"`
	PipelineSpec             json.RawMessage            `json:"pipeline_spec,omitempty"`
	PipelineVersionReference *versionReference          `json:"pipeline_version_reference,omitempty"`
	RuntimeConfig            *runtimeConfig             `json:"runtime_config,omitempty"`
	ServiceAccount           string                     `json:"service_account,omitempty"`
	MaxConcurrency           int64                      `json:"max_concurrency,string,omitempty"`
	Trigger                  *trigger                   `json:"trigger,omitempty"`
	Mode                     string                     `json:"mode,omitempty"`
	CreatedAt                *time.Time                 `json:"created_at,omitempty"`
	UpdatedAt                *time.Time                 `json:"updated_at,omitempty"`
	Status                   string                     `json:"status,omitempty"`
	Error                    *status                    `json:"error,omitempty"`
	NoCatchup                bool                       `json:"no_catchup,omitempty"`
	Namespace                string                     `json:"namespace,omitempty"`
	ExperimentID             string                     `json:"experiment_id,omitempty"`
	PluginsInput             map[string]json.RawMessage `json:"plugins_input,omitempty"`
}

type trigger struct {
	CronSchedule     *cronSchedule     `json:"cron_schedule,omitempty"`
	PeriodicSchedule *periodicSchedule `json:"periodic_schedule,omitempty"`
}

type cronSchedule struct {
	StartTime *time.Time `json:"start_time,omitempty"`
	EndTime   *time.Time `json:"end_time,omitempty"`
	Cron      string     `json:"cron,omitempty"`
}

type periodicSchedule struct {
	StartTime      *time.Time `json:"start_time,omitempty"`
	EndTime        *time.Time `json:"end_time,omitempty"`
	IntervalSecond int64      `json:"interval_second,string,omitempty"`
}

// stamp is a time for the wire: absent where there is none, else UTC.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// timeOf is the inverse of stamp.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
