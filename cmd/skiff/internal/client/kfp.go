package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
)

// pipelinesAPI is where the API of Kubeflow Pipelines answers.
const pipelinesAPI = "/apis/v2beta1"

// Act asks for an action on a run, an experiment or a recurring run
// ("runs", ID, "archive").
func (c *Client) Act(ctx context.Context, plural, id, action string) error {
	return c.callJSON(ctx, request{method: http.MethodPost, path: pipelinesAPI + "/" + plural + "/" + url.PathEscape(id) + ":" + action}, &struct{}{})
}

// Remove deletes an object of the API of Kubeflow Pipelines by its path below
// the API's root; query may say how.
func (c *Client) Remove(ctx context.Context, query url.Values, path ...string) error {
	escaped := make([]string, len(path))
	for i, part := range path {
		escaped[i] = url.PathEscape(part)
	}
	return c.callJSON(ctx, request{method: http.MethodDelete, path: pipelinesAPI + "/" + strings.Join(escaped, "/"), query: query}, &struct{}{})
}

// Upload is a pipeline, or a version of one, to be kept.
type Upload struct {
	Namespace, Name, Description string
	// PipelineID says which pipeline a version is of; empty makes a pipeline.
	PipelineID string
	Filename   string
	Package    []byte
}

// Uploaded is what was kept.
type Uploaded struct {
	PipelineID  string `json:"pipeline_id"`
	VersionID   string `json:"pipeline_version_id,omitempty"`
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
}

// UploadPipeline keeps a package as a pipeline with its first version, or as a
// further version.
func (c *Client) UploadPipeline(ctx context.Context, u Upload) (*Uploaded, error) {
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	part, err := writer.CreateFormFile("uploadfile", u.Filename)
	if err == nil {
		_, err = part.Write(u.Package)
	}
	if err == nil {
		err = writer.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("make the upload: %w", err)
	}
	query := url.Values{"name": {u.Name}, "description": {u.Description}}
	path := pipelinesAPI + "/pipelines/upload"
	if u.PipelineID != "" {
		path += "_version"
		query.Set("pipelineid", u.PipelineID)
	} else {
		query.Set("namespace", u.Namespace)
	}
	made := &Uploaded{}
	return made, c.callJSON(ctx, request{method: http.MethodPost, path: path, query: query, body: form.Bytes(), contentType: writer.FormDataContentType()}, made)
}

// DefaultExperiment is the id of a namespace's default experiment, which is there
// once it was asked for.
func (c *Client) DefaultExperiment(ctx context.Context, namespace string) (string, error) {
	query := url.Values{"namespace": {namespace}, "page_size": {"1"}}
	err := c.callJSON(ctx, request{method: http.MethodGet, path: pipelinesAPI + "/experiments", query: query}, &struct{}{})
	return skiff.DefaultExperiment(namespace), err
}

// MakeExperiment makes an experiment and returns its id.
func (c *Client) MakeExperiment(ctx context.Context, namespace, name string) (string, error) {
	body, err := json.Marshal(map[string]string{"display_name": name, "namespace": namespace})
	if err != nil {
		return "", fmt.Errorf("encode the experiment: %w", err)
	}
	var made struct {
		ID string `json:"experiment_id"`
	}
	err = c.callJSON(ctx, request{method: http.MethodPost, path: pipelinesAPI + "/experiments", body: body, contentType: "application/json"}, &made)
	return made.ID, err
}

// PipelineVersion is a kept pipeline in one of its versions.
type PipelineVersion struct {
	PipelineID string          `json:"pipeline_id"`
	ID         string          `json:"pipeline_version_id"`
	Spec       json.RawMessage `json:"pipeline_spec"`
}

// NamedVersion reads a version of a pipeline by its name; the newest where that is
// empty. It is nil where there is none.
func (c *Client) NamedVersion(ctx context.Context, pipelineID, name string) (*PipelineVersion, error) {
	query := url.Values{"page_size": {"1"}, "sort_by": {"created_at desc"}}
	if name != "" {
		filter, err := equals("name", name)
		if err != nil {
			return nil, err
		}
		query.Set("filter", filter)
	}
	var list struct {
		Versions []*PipelineVersion `json:"pipeline_versions"`
	}
	err := c.callJSON(ctx, request{method: http.MethodGet, path: pipelinesAPI + "/pipelines/" + url.PathEscape(pipelineID) + "/versions", query: query}, &list)
	if err != nil || len(list.Versions) == 0 {
		return nil, err
	}
	return list.Versions[0], nil
}

// equals is a filter of the API of Kubeflow Pipelines.
func equals(key, value string) (string, error) {
	data, err := json.Marshal(map[string]any{"predicates": []map[string]string{{"operation": "EQUALS", "key": key, "string_value": value}}})
	if err != nil {
		return "", fmt.Errorf("encode the filter: %w", err)
	}
	return string(data), nil
}

// RecurringRun is the message that makes a recurring run.
type RecurringRun struct {
	DisplayName     string                     `json:"display_name"`
	Description     string                     `json:"description,omitempty"`
	ExperimentID    string                     `json:"experiment_id,omitempty"`
	PipelineSpec    json.RawMessage            `json:"pipeline_spec,omitempty"`
	PipelineVersion *PipelineVersionReference  `json:"pipeline_version_reference,omitempty"`
	RuntimeConfig   RuntimeConfig              `json:"runtime_config"`
	MaxConcurrency  int64                      `json:"max_concurrency,string,omitempty"`
	NoCatchup       bool                       `json:"no_catchup,omitempty"`
	Mode            string                     `json:"mode"`
	Trigger         map[string]json.RawMessage `json:"trigger"`
}

// PipelineVersionReference names a kept pipeline; the newest version where none
// is named.
type PipelineVersionReference struct {
	PipelineID string `json:"pipeline_id"`
	VersionID  string `json:"pipeline_version_id,omitempty"`
}

// RuntimeConfig is what runs are made with.
type RuntimeConfig struct {
	Parameters   map[string]json.RawMessage `json:"parameters,omitempty"`
	PipelineRoot string                     `json:"pipeline_root,omitempty"`
}

// MakeRecurringRun makes a recurring run and returns its id.
func (c *Client) MakeRecurringRun(ctx context.Context, r *RecurringRun) (string, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode the recurring run: %w", err)
	}
	var made struct {
		ID string `json:"recurring_run_id"`
	}
	err = c.callJSON(ctx, request{method: http.MethodPost, path: pipelinesAPI + "/recurringruns", body: body, contentType: "application/json"}, &made)
	return made.ID, err
}

// ChangeRecurringRun changes the members of a recurring run that are named, and
// nothing else.
func (c *Client) ChangeRecurringRun(ctx context.Context, id string, changes map[string]any) error {
	body, err := json.Marshal(changes)
	if err != nil {
		return fmt.Errorf("encode the changes: %w", err)
	}
	return c.callJSON(ctx, request{method: http.MethodPatch, path: pipelinesAPI + "/recurringruns/" + url.PathEscape(id), body: body,
		contentType: "application/json"}, &struct{}{})
}

// RecurringRunSpec is the pipeline that a recurring run runs: its own, or the
// version that it would run now.
func (c *Client) RecurringRunSpec(ctx context.Context, id string) (json.RawMessage, error) {
	var found RecurringRun
	err := c.callJSON(ctx, request{method: http.MethodGet, path: pipelinesAPI + "/recurringruns/" + url.PathEscape(id)}, &found)
	reference := found.PipelineVersion
	if err != nil || reference == nil {
		return found.PipelineSpec, err
	}
	version := &PipelineVersion{}
	if reference.VersionID == "" {
		version, err = c.NamedVersion(ctx, reference.PipelineID, "")
	} else {
		err = c.callJSON(ctx, request{method: http.MethodGet, path: pipelinesAPI + "/pipelines/" + url.PathEscape(reference.PipelineID) +
			"/versions/" + url.PathEscape(reference.VersionID)}, version)
	}
	if err != nil {
		return nil, err
	}
	if version == nil {
		return nil, fmt.Errorf("pipeline %s has no version any more; upload one with \"skiff pipeline upload\"", reference.PipelineID)
	}
	return version.Spec, nil
}

// MadeRun is a run that came from a recurring run. ScheduledAt is that of its
// creation for one that was asked for at once.
type MadeRun struct {
	ID          string    `json:"run_id"`
	DisplayName string    `json:"display_name"`
	State       string    `json:"state"`
	ScheduledAt time.Time `json:"scheduled_at"`
	CreatedAt   time.Time `json:"created_at"`
}

// Trigger makes a run of a recurring run at once.
func (c *Client) Trigger(ctx context.Context, id string) (*MadeRun, error) {
	made := &MadeRun{}
	return made, c.callJSON(ctx, request{method: http.MethodPost, path: pipelinesAPI + "/recurringruns/" + url.PathEscape(id) + ":trigger"}, made)
}

// RunsOf are the newest runs of a recurring run.
func (c *Client) RunsOf(ctx context.Context, id string, most int) ([]MadeRun, error) {
	filter, err := equals("recurring_run_id", id)
	if err != nil {
		return nil, err
	}
	query := url.Values{"filter": {filter}, "page_size": {strconv.Itoa(most)}, "sort_by": {"created_at desc"}}
	var list struct {
		Runs []MadeRun `json:"runs"`
	}
	err = c.callJSON(ctx, request{method: http.MethodGet, path: pipelinesAPI + "/runs", query: query}, &list)
	return list.Runs, err
}
