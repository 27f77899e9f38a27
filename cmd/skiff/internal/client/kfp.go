package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
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
