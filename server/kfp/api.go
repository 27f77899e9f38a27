package kfp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/store"
)

// Engine is what the API asks of the one who runs pipelines.
type Engine interface {
	// Submit makes a run; a refusal is of class problem.ErrInvalid.
	Submit(ctx context.Context, s Submission) (*skiff.Run, error)
	// Check does what Submit does before it stores anything.
	Check(ctx context.Context, s Submission) error
	// Inspect checks a package, parameters aside, and returns what its runs
	// would be made from. Nothing is stored.
	Inspect(ctx context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error)
	// Retry takes a run up again that has failed or was cancelled.
	Retry(ctx context.Context, namespace, name string) error
	// Trigger makes a run of a recurring run at once, whatever its schedule.
	Trigger(ctx context.Context, namespace, name string) (*skiff.Run, error)
}

// Submission is a run to be made; see skiff.RunSpec.
type Submission struct {
	Namespace, DisplayName, Description, Experiment string
	Filename                                        string
	Package                                         []byte
	Parameters                                      map[string]json.RawMessage
	// Arguments are texts, to be read by the types of the pipeline's inputs.
	Arguments                    map[string]string
	PipelineRoot, ServiceAccount string
	PipelineVersion              *skiff.PipelineVersionReference
}

// Config is what an API needs. Store and Engine are required; without the rest
// what it stands for is answered with 501.
type Config struct {
	Store  store.Interface
	Engine Engine
	// PodLogs writes what a pod has written to w.
	PodLogs func(ctx context.Context, namespace, pod string, w io.Writer) error
	// Artifact opens an artifact's file; folders are tar streams.
	Artifact func(ctx context.Context, artifact *skiff.Artifact) (io.ReadCloser, error)
	// Sources says from where pipelines may be fetched by address; the zero
	// value is from nowhere.
	Sources address.Config
	Logger  *slog.Logger
}

// API answers the v2beta1 requests of one store.
type API struct {
	cfg Config
	// names is held while a display name that must be unique is looked for and
	// taken: the daemon is the store's only writer.
	names sync.Mutex
	specs specCache
	// bodies are buffers that answers were written from (*[]byte): a page of runs
	// takes half a megabyte, which is not to be collected for each.
	bodies sync.Pool
}

// New makes an API.
func New(cfg Config) *API {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &API{cfg: cfg}
}

const (
	base = "/apis/v2beta1"
	// group is the one that roles name for all of this API.
	group = "pipelines.kubeflow.org"
	// defaultNamespace is where what names no namespace is.
	defaultNamespace = "default"
)

// Bounds of bodies: the largest package that the engine takes, in an upload
// and quoted within JSON.
const (
	maxUpload = 32 << 20
	maxBody   = 64 << 20
)

// Store kinds, and the indexes that this package reads; their declarations say
// what is in them.
const (
	experimentsKind   = "experiments.skiff.dev"
	recurringRunsKind = "recurringruns.skiff.dev"
	pipelinesKind     = "pipelines.pipelines.kubeflow.org"
	versionsKind      = "pipelineversions.pipelines.kubeflow.org"
	runsKind          = "runs.skiff.dev"
	tasksKind         = "tasks.skiff.dev"
	artifactsKind     = "artifacts.skiff.dev"
	manifestsKind     = "pipelinemanifests.skiff.dev"
	podsKind          = "pods"

	byExperiment = "experiment"
	byName       = "name"
	byID         = "id"
	byRun        = "run"
	byPipeline   = "pipeline"

	separator = "\x00"
)

// handler is one method of the API: what it returns is the message of the
// answer.
type handler func(r *http.Request) (any, error)

// Routes are the API's endpoints.
func (a *API) Routes() []route.Route {
	var routes []route.Route
	add := func(method, path, verb, resource string, h handler) {
		one := route.Route{Method: method, Path: base + path, Verb: verb, Group: group, Resource: resource,
			Asks: true, Refuse: turnDown, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer, err := h(r)
				a.reply(w, answer, auth.GateFrom(r.Context()).Settle(err))
			})}
		if method == http.MethodPost || method == http.MethodPatch {
			one.Accepts, one.MaxBody = []string{"application/json"}, maxBody
		}
		routes = append(routes, one)
	}
	upload := func(path, resource string, h handler) {
		add(http.MethodPost, path, "create", resource, h)
		// Another site's page can send this type unasked; but not the token.
		routes[len(routes)-1].Accepts = []string{"multipart/form-data"}
	}
	const get, post, patch, remove = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	add(get, "/healthz", "get", "healthz", a.healthz)
	add(get, "/auth", "get", "auth", a.auth)
	add(get, "/filters", "get", "filters", a.filters)
	add(post, "/visualizations/{namespace}", "create", "visualizations", a.visualization)
	add(post, "/workflows", "create", "workflows", a.report)
	add(post, "/scheduledworkflows", "create", "scheduledworkflows", a.report)

	upload("/pipelines/upload", "pipelines", a.uploadPipeline)
	upload("/pipelines/upload_version", "pipelineversions", a.uploadVersion)
	add(get, "/pipelines", "list", "pipelines", a.listPipelines)
	add(post, "/pipelines", "create", "pipelines", a.createPipeline)
	add(post, "/pipelines/create", "create", "pipelines", a.createPipelineAndVersion)
	add(get, "/pipelines/{name}", "get", "pipelines", a.getPipeline)
	add(patch, "/pipelines/{name}", "patch", "pipelines", a.updatePipeline)
	add(remove, "/pipelines/{name}", "delete", "pipelines", a.deletePipeline)
	// pipelines/names/NAME and pipelines/ID/versions are one pattern to the mux.
	add(get, "/pipelines/{name}/{part}", "list", "pipelineversions", a.pipelinePart)
	add(post, "/pipelines/{name}/{part}", "create", "pipelineversions", a.pipelinePart)
	add(get, "/pipelines/{name}/versions/{version}", "get", "pipelineversions", a.getVersion)
	add(patch, "/pipelines/{name}/versions/{version}", "patch", "pipelineversions", a.updateVersion)
	add(remove, "/pipelines/{name}/versions/{version}", "delete", "pipelineversions", a.deleteVersion)

	add(get, "/experiments", "list", "experiments", a.listExperiments)
	add(post, "/experiments", "create", "experiments", a.createExperiment)
	add(get, "/experiments/{name}", "get", "experiments", a.getExperiment)
	add(remove, "/experiments/{name}", "delete", "experiments", a.deleteExperiment)
	add(post, "/experiments/{name}", "update", "experiments", a.experimentAction)

	add(get, "/runs", "list", "runs", a.listRuns)
	add(post, "/runs", "create", "runs", a.createRun)
	add(get, "/runs/{name}", "get", "runs", a.getRun)
	add(remove, "/runs/{name}", "delete", "runs", a.deleteRun)
	add(post, "/runs/{name}", "update", "runs", a.runAction)

	add(get, "/recurringruns", "list", "recurringruns", a.listRecurringRuns)
	add(post, "/recurringruns", "create", "recurringruns", a.createRecurringRun)
	add(get, "/recurringruns/{name}", "get", "recurringruns", a.getRecurringRun)
	add(patch, "/recurringruns/{name}", "patch", "recurringruns", a.updateRecurringRun)
	add(remove, "/recurringruns/{name}", "delete", "recurringruns", a.deleteRecurringRun)
	add(post, "/recurringruns/{name}", "update", "recurringruns", a.recurringRunAction)

	add(get, "/tasks", "list", "tasks", a.listTasks)
	add(get, "/tasks/{name}", "get", "tasks", a.getTask)
	add(post, "/tasks", "create", "tasks", a.readOnly)
	add(patch, "/tasks/{name}", "patch", "tasks", a.readOnly)
	add(get, "/artifacts", "list", "artifacts", a.listArtifacts)
	add(post, "/artifacts", "create", "artifacts", a.readOnly)
	add(get, "/artifacts/{name}", "get", "artifacts", a.getArtifact)
	add(get, "/artifact_tasks", "list", "artifacts", a.listArtifactTasks)
	add(post, "/artifact_tasks", "create", "artifacts", a.readOnly)
	add(get, "/runs/{name}/nodes/{node}/artifacts/{artifact}", "get", "artifacts", a.readArtifact)

	for _, path := range []string{"/apis/v1alpha1/runs/{name}/nodes/{node}/log", "/apis/v1beta1/runs/{name}/nodes/{node}/log", base + "/runs/{name}/nodes/{node}/log"} {
		routes = append(routes, route.Route{Method: get, Path: path, Verb: "get", Group: group, Resource: "runs", Subresource: "log",
			Asks: true, Refuse: turnDown, Stream: true, Handler: http.HandlerFunc(a.nodeLog)})
	}
	for _, method := range []string{get, post, patch, remove, http.MethodPut} {
		// What is nowhere else: a request's body is not looked at.
		add(method, "/{rest...}", "get", "unknown", a.nothing)
		routes[len(routes)-1].Accepts = nil
	}
	return routes
}

// body reads a request's message.
func body(r *http.Request, into any) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return data, decode(data, into)
}

var namespacePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// namespaceOf is the namespace that a request names, or the default one.
func namespaceOf(text string) (string, error) {
	if text == "" {
		return defaultNamespace, nil
	}
	if !namespacePattern.MatchString(text) {
		return "", badRequest("namespace %.80q: want lower-case letters, digits and dashes", text)
	}
	return text, nil
}

// find is the object with one of the API's ids, in whatever namespace it is.
func find[T core.Object](ctx context.Context, a *API, kind, what, id string) (T, error) {
	items, _, err := store.ListAs[T](ctx, a.cfg.Store, store.ListOptions{Kind: kind, Index: byID, Prefix: id, Exact: true, Limit: 1})
	var none T
	switch {
	case err != nil:
		return none, fmt.Errorf("look for %s %s: %w", what, id, err)
	case len(items) == 0 || id == "":
		return none, notFound(what, id)
	}
	return items[0], nil
}

// may asks whether the request may do what its route does, with an object or, where
// the name is empty, in a namespace.
func may(r *http.Request, namespace, name string) error {
	return auth.GateFrom(r.Context()).Allow(namespace, name)
}

// mayRead asks whether the request may draw on an object of another resource.
func mayRead(ctx context.Context, resource, namespace, name string) error {
	return auth.GateFrom(ctx).AllowOther("get", resource, namespace, name)
}

// namespaceFor is the namespace that a request names for a list or for what is to
// be made, once it may do that there.
func namespaceFor(r *http.Request, text string) (string, error) {
	namespace, err := namespaceOf(text)
	if err == nil {
		err = may(r, namespace, "")
	}
	return namespace, err
}

// named words a store's error about an object.
func named(err error, what, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return notFound(what, name)
	case errors.Is(err, store.ErrExists):
		return refuse(rpcExists, "%s %s already exists; choose another name", what, name)
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// change reads an object again, changes and writes it.
func change[T core.Object](ctx context.Context, a *API, kind, what string, obj T, fn func(T) error) (T, error) {
	meta := obj.Metadata()
	changed, err := store.ModifyAs(ctx, a.cfg.Store, store.Key{Kind: kind, Namespace: meta.Namespace, Name: meta.Name}, fn)
	if _, own := errors.AsType[*refusal](err); own {
		return changed, err
	}
	return changed, named(err, what, meta.Name)
}

// createdAt is a field that every kind has.
func createdAt(o core.Object) time.Time { return o.Metadata().CreationTimestamp }

func namespaceField(o core.Object) string { return o.Metadata().Namespace }
func nameField(o core.Object) string      { return o.Metadata().Name }
func uidField(o core.Object) string       { return o.Metadata().UID }
