package kfp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// The reads of artifacts and tasks are named as in upstream's proposal to do
// without its metadata service (proposals/12147-mlmd-removal in
// kubeflow/pipelines).

type artifactMessage struct {
	ArtifactID  string                     `json:"artifact_id,omitempty"`
	Name        string                     `json:"name,omitempty"`
	Type        string                     `json:"type,omitempty"`
	URI         string                     `json:"uri,omitempty"`
	Metadata    map[string]json.RawMessage `json:"metadata,omitempty"`
	NumberValue *float64                   `json:"number_value,omitempty"`
	CreatedAt   *time.Time                 `json:"created_at,omitempty"`
	Namespace   string                     `json:"namespace,omitempty"`
}

type artifactTask struct {
	ID               string `json:"id,omitempty"`
	ArtifactID       string `json:"artifact_id,omitempty"`
	RunID            string `json:"run_id,omitempty"`
	TaskID           string `json:"task_id,omitempty"`
	Type             string `json:"type,omitempty"`
	ProducerTaskName string `json:"producer_task_name,omitempty"`
	ProducerKey      string `json:"producer_key,omitempty"`
	ArtifactKey      string `json:"artifact_key,omitempty"`
}

func artifactTitle(a *skiff.Artifact) string {
	if a.Spec.DisplayName != "" {
		return a.Spec.DisplayName
	}
	return a.Spec.Output
}

// artifactType is the proposal's word for a schema: its name without "system.".
func artifactType(title string) string {
	switch name := strings.TrimPrefix(title, "system."); name {
	case "Model", "Dataset", "HTML", "Markdown", "Artifact":
		return name
	case "Metrics":
		return "Metric"
	case "ClassificationMetrics":
		return "ClassificationMetric"
	case "SlicedClassificationMetrics":
		return "SlicedClassificationMetric"
	}
	return "Artifact"
}

func messageOf(a *skiff.Artifact) *artifactMessage {
	return &artifactMessage{ArtifactID: a.Name, Name: artifactTitle(a), Type: artifactType(a.Spec.SchemaTitle), URI: a.Spec.URI,
		Metadata: a.Spec.Metadata, CreatedAt: stamp(a.CreationTimestamp), Namespace: a.Namespace}
}

func artifactListing() *listing {
	id := query.Text(nameField)
	return &listing{
		Kind: artifactsKind, ScopeField: "run_id", Limits: few(),
		Fields: map[string]query.Field{
			"artifact_id": id, "id": id, "created_at": query.Moment(createdAt), "namespace": query.Text(namespaceField),
			"name":   query.Text(func(o core.Object) string { return artifactTitle(o.(*skiff.Artifact)) }),
			"type":   query.Enum(func(o core.Object) string { return artifactType(o.(*skiff.Artifact).Spec.SchemaTitle) }),
			"uri":    query.Text(func(o core.Object) string { return o.(*skiff.Artifact).Spec.URI }),
			"run_id": query.Text(func(o core.Object) string { return o.(*skiff.Artifact).Spec.Run }),
		},
		Spans: spansOfRun,
	}
}

// spansOfRun go by the run that the filter or the request names, else by name.
func spansOfRun(q *query.Query) []query.Span {
	of := func(run string, covered ...int) []query.Span {
		return []query.Span{{Name: "run", Index: byRun, Prefix: run, Exact: true, Covered: covered, Narrow: true}}
	}
	if run, i := q.Predicate(query.Equals, "run_id"); i >= 0 {
		return of(run, i)
	}
	return []query.Span{{Name: "all"}}
}

func (a *API) listArtifacts(r *http.Request) (any, error) {
	page, err := a.listBy(r, artifactListing(), "")
	if err != nil {
		return nil, err
	}
	answer := struct {
		Artifacts     []*artifactMessage `json:"artifacts,omitempty"`
		TotalSize     int                `json:"total_size,omitempty"`
		NextPageToken string             `json:"next_page_token,omitempty"`
	}{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		answer.Artifacts = append(answer.Artifacts, messageOf(obj.(*skiff.Artifact)))
	}
	return answer, nil
}

// listBy reads a page of a kind in the request's namespace.
func (a *API) listBy(r *http.Request, l *listing, scope string) (*page, error) {
	namespace, err := namespaceOf(r.URL.Query().Get("namespace"))
	if err != nil {
		return nil, err
	}
	if scope != "" {
		found, err := find[*skiff.Run](r.Context(), a, runsKind, "run", scope)
		if err != nil {
			return nil, err
		}
		namespace = found.Namespace
	}
	if err := may(r, namespace, ""); err != nil {
		return nil, err
	}
	return a.list(r.Context(), l, r.URL.Query(), namespace, scope)
}

// inNamespace reads an object of a kind whose ids are names in a namespace.
func inNamespace[T core.Object](r *http.Request, a *API, kind, what, name string) (T, error) {
	var none T
	namespace, err := namespaceOf(r.URL.Query().Get("namespace"))
	if err == nil {
		err = may(r, namespace, name)
	}
	if err != nil {
		return none, err
	}
	obj, err := store.GetAs[T](r.Context(), a.cfg.Store, store.Key{Kind: kind, Namespace: namespace, Name: name})
	return obj, named(err, what, name)
}

func (a *API) getArtifact(r *http.Request) (any, error) {
	found, err := inNamespace[*skiff.Artifact](r, a, artifactsKind, "artifact", r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return messageOf(found), nil
}

func taskListing() *listing {
	id := query.Text(nameField)
	display := query.Text(func(o core.Object) string { return taskTitle(o.(*skiff.Task)) })
	return &listing{
		Kind: tasksKind, ScopeField: "run_id", Limits: few(),
		Fields: map[string]query.Field{
			"task_id": id, "id": id, "display_name": display, "name": display, "created_at": query.Moment(createdAt),
			"run_id":         query.Text(func(o core.Object) string { return o.(*skiff.Task).Spec.Run }),
			"parent_task_id": query.Text(func(o core.Object) string { return o.(*skiff.Task).Spec.Parent }),
			"state":          query.Enum(func(o core.Object) string { return query.StateOf(o.(*skiff.Task).Status.State) }),
		},
		Spans: spansOfRun,
	}
}

func (a *API) listTasks(r *http.Request) (any, error) {
	page, err := a.listBy(r, taskListing(), param(r.URL.Query(), "run_id"))
	if err != nil {
		return nil, err
	}
	answer := struct {
		Tasks         []taskDetail `json:"tasks,omitempty"`
		TotalSize     int          `json:"total_size,omitempty"`
		NextPageToken string       `json:"next_page_token,omitempty"`
	}{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		answer.Tasks = append(answer.Tasks, taskMessage(obj.(*skiff.Task), nil))
	}
	return answer, nil
}

func (a *API) getTask(r *http.Request) (any, error) {
	found, err := inNamespace[*skiff.Task](r, a, tasksKind, "task", r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return taskMessage(found, nil), nil
}

// readOnly answers the writes that upstream has for its own drivers and
// launchers; here the engine is the only writer.
func (a *API) readOnly(*http.Request) (any, error) {
	return nil, refuse(rpcUnimplemented, "tasks and artifacts are written by the engine alone; they can be read here")
}

// repeated takes a query parameter that may be given several times.
func repeated(values url.Values, name string) []string {
	return append(slices.Clone(values[name]), values[camel(name)]...)
}

// listArtifactTasks tells which tasks made and used which artifacts, of the runs
// or tasks that are named. It gives all of them at once: they are a run's.
func (a *API) listArtifactTasks(r *http.Request) (any, error) {
	ctx, values := r.Context(), r.URL.Query()
	runs, tasks, artifacts := repeated(values, "run_ids"), repeated(values, "task_ids"), repeated(values, "artifact_ids")
	if len(runs)+len(tasks)+len(artifacts) == 0 {
		return nil, badRequest("want run_ids, task_ids or artifact_ids")
	}
	kind := values.Get("type")
	var links []artifactTask
	add := func(t *skiff.Task) error {
		links = append(links, linksOf(t, artifacts, kind)...)
		return nil
	}
	for _, id := range artifacts {
		found, err := inNamespace[*skiff.Artifact](r, a, artifactsKind, "artifact", id)
		if err != nil {
			return nil, err
		}
		if len(runs)+len(tasks) == 0 && found.Spec.Run != "" && !slices.Contains(runs, found.Spec.Run) {
			runs = append(runs, found.Spec.Run)
		}
	}
	for _, id := range tasks {
		t, err := inNamespace[*skiff.Task](r, a, tasksKind, "task", id)
		if err != nil {
			return nil, err
		}
		_ = add(t) // it never fails
	}
	for _, id := range runs {
		found, err := find[*skiff.Run](ctx, a, runsKind, "run", id)
		if err == nil {
			err = may(r, found.Namespace, "")
		}
		if err != nil {
			return nil, err
		}
		err = a.each(ctx, ofRun(tasksKind, &found.ObjectMeta), func(obj core.Object) error { return add(obj.(*skiff.Task)) })
		if err != nil {
			return nil, err
		}
	}
	return struct {
		ArtifactTasks []artifactTask `json:"artifact_tasks,omitempty"`
		TotalSize     int            `json:"total_size,omitempty"`
	}{links, len(links)}, nil
}

// linksOf are the artifacts that a task used and made.
func linksOf(t *skiff.Task, only []string, kind string) []artifactTask {
	var links []artifactTask
	collect := func(word string, by map[string][]string) {
		if kind != "" && kind != word {
			return
		}
		keys := make([]string, 0, len(by))
		for key := range by {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			for _, id := range by[key] {
				if len(only) > 0 && !slices.Contains(only, id) {
					continue
				}
				link := artifactTask{ID: t.Name + "/" + strings.ToLower(word) + "/" + key + "/" + id, ArtifactID: id, RunID: t.Spec.Run,
					TaskID: t.Name, Type: word, ArtifactKey: key}
				if word == "OUTPUT" {
					link.ProducerTaskName, link.ProducerKey = t.Spec.Key, key
				}
				links = append(links, link)
			}
		}
	}
	collect("INPUT", t.Status.InputArtifacts)
	collect("OUTPUT", t.Status.OutputArtifacts)
	return links
}

// maxRead bounds an artifact that is read into an answer's JSON.
const maxRead = 64 << 20

// readArtifact gives an artifact's contents in base64, as published. A node is
// a task: by its id, its path in the run, or its pod.
func (a *API) readArtifact(r *http.Request) (any, error) {
	output, is := strings.CutSuffix(r.PathValue("artifact"), ":read")
	if !is {
		return nil, refuse(rpcNotFound, "there is nothing at %s; read an artifact with NAME:read", r.URL.Path)
	}
	if a.cfg.Artifact == nil {
		return nil, refuse(rpcUnimplemented, "this daemon gives no artifacts out")
	}
	ctx := r.Context()
	found, err := a.lookUpRun(r, r.PathValue("name"))
	if err == nil {
		err = may(r, found.Namespace, "")
	}
	if err != nil {
		return nil, err
	}
	task, err := a.node(ctx, found, r.PathValue("node"))
	if err != nil {
		return nil, err
	}
	ids := task.Status.OutputArtifacts[output]
	if len(ids) == 0 {
		return nil, refuse(rpcNotFound, "task %s has made no artifact %s", taskTitle(task), output)
	}
	artifact, err := store.GetAs[*skiff.Artifact](ctx, a.cfg.Store, store.Key{Kind: artifactsKind, Namespace: found.Namespace, Name: ids[0]})
	if err != nil {
		return nil, named(err, "artifact", ids[0])
	}
	if why := artifact.Gone(); why != "" {
		return nil, refuse(rpcNotFound, "artifact %s: %s", output, why)
	}
	content, err := a.cfg.Artifact(ctx, artifact)
	if err != nil {
		return nil, err
	}
	defer func() { _ = content.Close() }()
	data, err := io.ReadAll(io.LimitReader(content, maxRead+1))
	if err != nil {
		return nil, fmt.Errorf("read artifact %s: %w", artifact.Name, err)
	}
	if len(data) > maxRead {
		return nil, refuse(rpcPrecondition, "artifact %s has more than %d bytes; download it from /apis/skiff.dev/v1alpha1/namespaces/%s/artifacts/%s/content",
			output, maxRead, artifact.Namespace, artifact.Name)
	}
	return map[string][]byte{"data": data}, nil
}

// node finds a task of a run by what clients call a node.
func (a *API) node(ctx context.Context, r *skiff.Run, name string) (*skiff.Task, error) {
	t, err := store.GetAs[*skiff.Task](ctx, a.cfg.Store, store.Key{Kind: tasksKind, Namespace: r.Namespace, Name: name})
	if err == nil && t.Spec.Run == r.Name {
		return t, nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrInvalid) {
		return nil, err
	}
	var found *skiff.Task
	err = a.each(ctx, ofRun(tasksKind, &r.ObjectMeta), func(obj core.Object) error {
		if t := obj.(*skiff.Task); t.Spec.Path == name || (t.Status.Pod != "" && t.Status.Pod == name) {
			found = t
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, refuse(rpcNotFound, "run %s has no node %s; nodes are tasks, by their id, their path or their pod", r.Name, name)
	}
	return found, nil
}
