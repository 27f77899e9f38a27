package kfp

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

// few are the limits of kinds that people make by hand: all are sorted.
func few() query.Limits { return query.Limits{Sorted: 20_000} }

func pipelineListing() *listing {
	display := query.Text(func(o core.Object) string { return pipelineTitle(o.(*kfp.Pipeline)) })
	id := query.Text(uidField)
	return &listing{Kind: pipelinesKind, Limits: few(), Fields: map[string]query.Field{
		"pipeline_id": id, "id": id, "display_name": display,
		"name":        query.Text(func(o core.Object) string { return kfp.NameOf(o.Metadata()) }),
		"created_at":  query.Moment(createdAt),
		"description": query.Text(func(o core.Object) string { return o.(*kfp.Pipeline).Spec.Description }),
		"namespace":   query.Text(namespaceField),
	}}
}

// pipelineTitle is the display name, which is the name unless another was given.
func pipelineTitle(p *kfp.Pipeline) string {
	if p.Spec.DisplayName != "" {
		return p.Spec.DisplayName
	}
	return kfp.NameOf(&p.ObjectMeta)
}

func pipelineMessage(p *kfp.Pipeline) *pipeline {
	return &pipeline{
		PipelineID: p.UID, DisplayName: pipelineTitle(p), Name: kfp.NameOf(&p.ObjectMeta), Description: p.Spec.Description,
		CreatedAt: stamp(p.CreationTimestamp), Namespace: p.Namespace, Tags: p.Spec.Tags,
	}
}

type listPipelinesResponse struct {
	Pipelines     []*pipeline `json:"pipelines,omitempty"`
	TotalSize     int         `json:"total_size,omitempty"`
	NextPageToken string      `json:"next_page_token,omitempty"`
}

func (a *API) listPipelines(r *http.Request) (any, error) {
	namespace, err := namespaceFor(r, r.URL.Query().Get("namespace"))
	if err != nil {
		return nil, err
	}
	page, err := a.list(r.Context(), pipelineListing(), r.URL.Query(), namespace, "")
	if err != nil {
		return nil, err
	}
	answer := &listPipelinesResponse{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		answer.Pipelines = append(answer.Pipelines, pipelineMessage(obj.(*kfp.Pipeline)))
	}
	return answer, nil
}

func (a *API) findPipeline(ctx context.Context, id string) (*kfp.Pipeline, error) {
	return find[*kfp.Pipeline](ctx, a, pipelinesKind, "pipeline", id)
}

// askedPipeline is the pipeline that a request is about, once it may be. Requests
// about its versions name them, or none.
func (a *API) askedPipeline(r *http.Request, id string) (*kfp.Pipeline, error) {
	p, err := a.findPipeline(r.Context(), id)
	if err == nil {
		err = may(r, p.Namespace, p.Name)
	}
	return p, err
}

func (a *API) getPipeline(r *http.Request) (any, error) {
	p, err := a.askedPipeline(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return pipelineMessage(p), nil
}

// pipelinePart answers what lies one step below pipelines/.
func (a *API) pipelinePart(r *http.Request) (any, error) {
	switch part := r.PathValue("part"); {
	case r.PathValue("name") == "names" && r.Method != http.MethodPost:
		return a.pipelineByName(r)
	case part != "versions":
		return nil, refuse(rpcNotFound, "there is nothing at %s", r.URL.Path)
	case r.Method == http.MethodPost:
		return a.createVersion(r)
	default:
		return a.listVersions(r)
	}
}

func (a *API) pipelineByName(r *http.Request) (any, error) {
	name := r.PathValue("part")
	namespace, err := namespaceOf(r.URL.Query().Get("namespace"))
	if err == nil {
		err = mayRead(r.Context(), "pipelines", namespace, kfp.ObjectName(name))
	}
	if err != nil {
		return nil, err
	}
	p, err := store.GetAs[*kfp.Pipeline](r.Context(), a.cfg.Store, store.Key{Kind: pipelinesKind, Namespace: namespace, Name: kfp.ObjectName(name)})
	if err != nil {
		return nil, named(err, "pipeline", name)
	}
	return pipelineMessage(p), nil
}

// newPipeline is the object of a pipeline that is to be made, once the request may
// make one.
func newPipeline(r *http.Request, m *pipeline) (*kfp.Pipeline, error) {
	namespace, err := namespaceFor(r, m.Namespace)
	if err != nil {
		return nil, err
	}
	return pipelineOf(namespace, m)
}

// pipelineOf is the object of a pipeline in a namespace.
func pipelineOf(namespace string, m *pipeline) (*kfp.Pipeline, error) {
	name := strings.TrimSpace(m.Name)
	if name == "" {
		name = strings.TrimSpace(m.DisplayName)
	}
	problems := kfp.ValidateNames(name, m.DisplayName, m.Description)
	problems = append(problems, kfp.ValidateTags(m.Tags)...)
	if len(problems) > 0 {
		return nil, problems
	}
	p := &kfp.Pipeline{
		TypeMeta:   core.TypeMeta{APIVersion: kfp.ResourceAPIVersion, Kind: kfp.PipelineKind},
		ObjectMeta: core.ObjectMeta{Name: kfp.ObjectName(name), Namespace: namespace, UID: uuid.NewString()},
		Spec:       kfp.PipelineResourceSpec{DisplayName: m.DisplayName, Description: m.Description, Tags: m.Tags},
	}
	if p.Name != name {
		p.Annotations = map[string]string{kfp.AnnotationName: name}
	}
	return p, nil
}

// createPipeline makes a pipeline without a version.
func (a *API) createPipeline(r *http.Request) (any, error) {
	var message pipeline
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	p, err := newPipeline(r, &message)
	if err != nil {
		return nil, err
	}
	_, err = a.cfg.Store.Commit(r.Context(), store.Op{Verb: store.Create, Kind: pipelinesKind, Object: p})
	if err != nil {
		return nil, named(err, "pipeline", kfp.NameOf(&p.ObjectMeta))
	}
	return pipelineMessage(p), nil
}

func (a *API) createPipelineAndVersion(r *http.Request) (any, error) {
	var message createPipelineAndVersion
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	if message.Pipeline == nil || message.PipelineVersion == nil {
		return nil, badRequest("want a pipeline and a pipeline_version")
	}
	p, err := newPipeline(r, message.Pipeline)
	if err != nil {
		return nil, err
	}
	v, err := a.newVersion(r.Context(), p, message.PipelineVersion, nil)
	if err != nil {
		return nil, err
	}
	if err := a.keepPipeline(r.Context(), p, v); err != nil {
		return nil, err
	}
	return pipelineMessage(p), nil
}

// keepPipeline stores a pipeline with its first version, both or none.
func (a *API) keepPipeline(ctx context.Context, p *kfp.Pipeline, v *kfp.PipelineVersion) error {
	_, err := a.cfg.Store.Commit(ctx, store.Op{Verb: store.Create, Kind: pipelinesKind, Object: p},
		store.Op{Verb: store.Create, Kind: versionsKind, Object: v})
	return named(err, "pipeline", kfp.NameOf(&p.ObjectMeta))
}

// updatePipeline changes what people say of a pipeline: the fields that the
// body has.
func (a *API) updatePipeline(r *http.Request) (any, error) {
	var message pipeline
	data, err := body(r, &message)
	if err != nil {
		return nil, err
	}
	p, err := a.askedPipeline(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if (message.PipelineID != "" && message.PipelineID != p.UID) || (message.Name != "" && message.Name != kfp.NameOf(&p.ObjectMeta)) {
		return nil, badRequest("the name and the id of a pipeline cannot be changed")
	}
	problems := kfp.ValidateNames("-", message.DisplayName, message.Description)
	if problems = append(problems, kfp.ValidateTags(message.Tags)...); len(problems) > 0 {
		return nil, problems
	}
	given := members(data)
	p, err = change(r.Context(), a, pipelinesKind, "pipeline", p, func(p *kfp.Pipeline) error {
		setIf(given["display_name"], &p.Spec.DisplayName, message.DisplayName)
		setIf(given["description"], &p.Spec.Description, message.Description)
		setIf(given["tags"], &p.Spec.Tags, message.Tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return pipelineMessage(p), nil
}

func setIf[T any](given bool, target *T, value T) {
	if given {
		*target = value
	}
}

// deletePipeline refuses while there are versions, unless they shall go too.
// Runs that were made from them keep what they need.
func (a *API) deletePipeline(r *http.Request) (any, error) {
	ctx := r.Context()
	p, err := a.askedPipeline(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	versions := versionsOf(p)
	n, err := a.cfg.Store.Count(ctx, versions, 1)
	if err != nil {
		return nil, err
	}
	cascade, _ := strconv.ParseBool(r.URL.Query().Get("cascade")) // absent is false, and so is what is no truth value
	if n > 0 && !cascade {
		return nil, refuse(rpcPrecondition, "pipeline %s has versions; delete them first, or delete it with cascade=true", kfp.NameOf(&p.ObjectMeta))
	}
	// The versions first: if the daemon ends in between, the pipeline is there
	// to be deleted again.
	for {
		page, err := a.cfg.Store.List(ctx, versions)
		if err != nil {
			return nil, err
		}
		ops := make([]store.Op, 0, len(page.Items))
		for _, obj := range page.Items {
			ops = append(ops, store.Op{Verb: store.Delete, Kind: versionsKind,
				Key: store.Key{Kind: versionsKind, Namespace: obj.Metadata().Namespace, Name: obj.Metadata().Name}})
		}
		if _, err := a.cfg.Store.Commit(ctx, ops...); err != nil {
			return nil, named(err, "pipeline", p.UID)
		}
		if page.Continue == "" {
			break
		}
	}
	_, err = a.cfg.Store.Commit(ctx, store.Op{Verb: store.Delete, Kind: pipelinesKind,
		Key: store.Key{Kind: pipelinesKind, Namespace: p.Namespace, Name: p.Name}})
	return empty(), named(err, "pipeline", p.UID)
}
