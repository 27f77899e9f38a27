package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

const (
	skiffRoot = "/apis/skiff.dev/v1alpha1"
	kfpRoot   = "/apis/pipelines.kubeflow.org/v2beta1"
)

// Kind is a resource as its path is made.
type Kind struct{ root, plural string }

// The kinds that the command line shows.
func kinds() map[string]Kind {
	return map[string]Kind{
		"runs": {skiffRoot, "runs"}, "tasks": {skiffRoot, "tasks"},
		"artifacts": {skiffRoot, "artifacts"}, "pods": {"/api/v1", "pods"},
		"persistentvolumeclaims": {"/api/v1", "persistentvolumeclaims"}, "secrets": {"/api/v1", "secrets"}, "configmaps": {"/api/v1", "configmaps"},
		"experiments": {skiffRoot, "experiments"}, "recurringruns": {skiffRoot, "recurringruns"},
		"pipelines": {kfpRoot, "pipelines"}, "pipelineversions": {kfpRoot, "pipelineversions"},
	}
}

// KindOf is the kind of a plural.
func KindOf(plural string) (Kind, bool) {
	k, ok := kinds()[plural]
	return k, ok
}

// path of a collection or, with a name, of an object; no namespace means all.
func (k Kind) path(namespace string, rest ...string) string {
	path := k.root
	if namespace != "" {
		path += "/namespaces/" + url.PathEscape(namespace)
	}
	parts := []string{path, k.plural}
	for _, part := range rest {
		parts = append(parts, url.PathEscape(part))
	}
	return strings.Join(parts, "/")
}

// ListOptions select a page.
type ListOptions struct {
	// Namespace is empty for all.
	Namespace      string
	Labels, Fields string
	Limit          int
	Continue       string
	// Sort and Filters pick runs by their metrics and parameters.
	Sort    string
	Filters []string
}

func (o ListOptions) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": o.Labels, "fieldSelector": o.Fields, "continue": o.Continue, "sortBy": o.Sort} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if o.Limit > 0 {
		query.Set("limit", strconv.Itoa(o.Limit))
	}
	if len(o.Filters) > 0 {
		query["filter"] = o.Filters
	}
	return query
}

// List is one page of objects.
type List struct {
	Metadata kube.ListMeta     `json:"metadata"`
	Items    []json.RawMessage `json:"items"`
}

// List reads one page.
func (c *Client) List(ctx context.Context, kind Kind, opts ListOptions) (*List, error) {
	list := &List{}
	return list, c.getJSON(ctx, kind.path(opts.Namespace), opts.query(), list)
}

// tableType asks for rows made for people.
const tableType = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// Table reads one page as a table; with a name, one object.
func (c *Client) Table(ctx context.Context, kind Kind, name string, opts ListOptions) (*kube.Table, error) {
	r := request{method: http.MethodGet, path: kind.path(opts.Namespace), query: opts.query(), accept: tableType}
	if name != "" {
		r.path = kind.path(opts.Namespace, name)
	}
	table := &kube.Table{}
	return table, c.callJSON(ctx, r, table)
}

// Get reads one object into a value.
func (c *Client) Get(ctx context.Context, kind Kind, namespace, name string, into any) error {
	return c.getJSON(ctx, kind.path(namespace, name), nil, into)
}

// Create makes an object and decodes it, as it is then, into itself. With
// dryRun it is only checked.
func (c *Client) Create(ctx context.Context, kind Kind, namespace string, object any, dryRun bool) error {
	body, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("encode the object: %w", err)
	}
	r := request{method: http.MethodPost, path: kind.path(namespace), body: body, contentType: "application/json"}
	if dryRun {
		r.query = url.Values{"dryRun": {"All"}}
	}
	return c.callJSON(ctx, r, object)
}

// Delete removes an object, or marks it where something must be cleared up first.
func (c *Client) Delete(ctx context.Context, kind Kind, namespace, name string) error {
	return c.copy(ctx, request{method: http.MethodDelete, path: kind.path(namespace, name)}, io.Discard)
}

// Event is one change.
type Event struct {
	Type   store.EventType `json:"type"`
	Object json.RawMessage `json:"object"`
}

// Watch calls fn for the objects there are and then for each change, until fn
// or ctx ends it. It returns fn's error, ctx's cause, or why the stream ended.
func (c *Client) Watch(ctx context.Context, kind Kind, opts ListOptions, fn func(Event) error) error {
	query := opts.query()
	query.Set("watch", "true")
	res, err := c.do(ctx, request{method: http.MethodGet, path: kind.path(opts.Namespace), query: query})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	decoder := json.NewDecoder(bufio.NewReader(res.Body))
	for {
		var event Event
		if err := decoder.Decode(&event); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("watch %s: %w", kind.plural, err)
		}
		if event.Type == "ERROR" {
			status := &StatusError{}
			if err := json.Unmarshal(event.Object, &status.Status); err != nil {
				return fmt.Errorf("watch %s: %w", kind.plural, err)
			}
			return status
		}
		if err := fn(event); err != nil {
			return err
		}
	}
}

// Submit hands in a pipeline. With dryRun it is only checked, and the run is nil.
func (c *Client) Submit(ctx context.Context, s server.Submission, dryRun bool) (*skiff.Run, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the submission: %w", err)
	}
	r := request{method: http.MethodPost, path: skiffRoot + "/namespaces/" + url.PathEscape(s.Namespace) + "/runs:submit",
		body: body, contentType: "application/json"}
	if dryRun {
		r.query = url.Values{"dryRun": {"All"}}
		return nil, c.callJSON(ctx, r, &kube.Status{})
	}
	run := &skiff.Run{}
	return run, c.callJSON(ctx, r, run)
}

// Run reads a run's document.
func (c *Client) Run(ctx context.Context, namespace, name string) (*view.Run, error) {
	run := &view.Run{}
	return run, c.getJSON(ctx, kinds()["runs"].path(namespace, name, "document"), nil, run)
}

// Cancel asks a run to stop and returns it as it is then.
func (c *Client) Cancel(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	run := &skiff.Run{}
	return run, c.callJSON(ctx, request{method: http.MethodPatch, path: kinds()["runs"].path(namespace, name),
		body: []byte(`{"spec":{"cancel":true}}`), contentType: "application/merge-patch+json"}, run)
}

// Annotate sets an annotation of an object; value is JSON, null takes it away.
func (c *Client) Annotate(ctx context.Context, kind Kind, namespace, name, key, value string) error {
	body := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, value)
	return c.callJSON(ctx, request{method: http.MethodPatch, path: kind.path(namespace, name), body: []byte(body),
		contentType: "application/merge-patch+json"}, &struct{}{})
}

// Purge keeps a namespace to its retention at once, or to the one that is given
// (see skiff.ParseRetention). With dryRun it only says what would go.
func (c *Client) Purge(ctx context.Context, namespace, retain string, dryRun bool) (*skiff.PurgeReport, error) {
	query := url.Values{}
	if retain != "" {
		query.Set("retain", retain)
	}
	if dryRun {
		query.Set("dryRun", "All")
	}
	report := &skiff.PurgeReport{}
	return report, c.callJSON(ctx, request{method: http.MethodPost, path: kinds()["artifacts"].path(namespace) + ":gc", query: query}, report)
}

// LogOptions select log lines.
type LogOptions struct {
	Follow, Timestamps bool
	// TailLines below 0 means all.
	TailLines int64
	Container string
}

// Logs copies the log of a pod or a task to w.
func (c *Client) Logs(ctx context.Context, kind Kind, namespace, name string, opts LogOptions, w io.Writer) error {
	query := url.Values{}
	if opts.Follow {
		query.Set("follow", "true")
	}
	if opts.Timestamps {
		query.Set("timestamps", "true")
	}
	if opts.TailLines >= 0 {
		query.Set("tailLines", strconv.FormatInt(opts.TailLines, 10))
	}
	if opts.Container != "" {
		query.Set("container", opts.Container)
	}
	return c.copy(ctx, request{method: http.MethodGet, path: kind.path(namespace, name, "log"), query: query}, w)
}

// ArtifactContent copies an artifact's file, or a tar stream of its folder, to w.
func (c *Client) ArtifactContent(ctx context.Context, namespace, name string, w io.Writer) error {
	return c.copy(ctx, request{method: http.MethodGet, path: kinds()["artifacts"].path(namespace, name, "content")}, w)
}

// Backup copies a hot backup of the store to w.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	return c.copy(ctx, request{method: http.MethodGet, path: skiffRoot + "/backup"}, w)
}

func (c *Client) copy(ctx context.Context, r request, w io.Writer) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("read %s: %w", r.path, err)
	}
	return nil
}

// Node describes the machine and the daemon.
func (c *Client) Node(ctx context.Context) (*view.Node, error) {
	node := &view.Node{}
	return node, c.getJSON(ctx, skiffRoot+"/node", nil, node)
}

// Usage reads what the running pods use.
func (c *Client) Usage(ctx context.Context) ([]view.Usage, error) {
	var list struct {
		Items []view.Usage `json:"items"`
	}
	err := c.getJSON(ctx, skiffRoot+"/usage", nil, &list)
	return list.Items, err
}

// Version asks the daemon for its version.
func (c *Client) Version(ctx context.Context) (*server.VersionInfo, error) {
	version := &server.VersionInfo{}
	return version, c.getJSON(ctx, "/version", nil, version)
}

// Ready reports whether the daemon can take work; ErrNoDaemon where there is none.
func (c *Client) Ready(ctx context.Context) error {
	return c.copy(ctx, request{method: http.MethodGet, path: "/readyz"}, io.Discard)
}
