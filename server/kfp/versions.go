package kfp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path"
	"strings"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/store"
)

func versionListing() *listing {
	id := query.Text(uidField)
	return &listing{
		Kind: versionsKind,
		Fields: map[string]query.Field{
			"pipeline_version_id": id, "id": id,
			"display_name": query.Text(func(o core.Object) string { return versionTitle(o.(*kfp.PipelineVersion)) }),
			"name":         query.Text(func(o core.Object) string { return kfp.NameOf(o.Metadata()) }),
			"created_at":   query.Moment(createdAt),
			"description":  query.Text(func(o core.Object) string { return o.(*kfp.PipelineVersion).Spec.Description }),
		},
		Spans: func(q *query.Query) []query.Span {
			return []query.Span{{Name: "pipeline", Index: byPipeline, Prefix: q.Scope + separator, Narrow: true, Order: "created_at", Desc: true}}
		},
	}
}

func versionTitle(v *kfp.PipelineVersion) string {
	if v.Spec.DisplayName != "" {
		return v.Spec.DisplayName
	}
	return kfp.NameOf(&v.ObjectMeta)
}

// versionsOf lists a pipeline's versions, newest first.
func versionsOf(p *kfp.Pipeline) store.ListOptions {
	return store.ListOptions{Kind: versionsKind, Namespace: p.Namespace, Index: byPipeline, Prefix: p.Name + separator}
}

func versionMessage(v *kfp.PipelineVersion, pipelineID string) *pipelineVersion {
	m := &pipelineVersion{
		PipelineID: pipelineID, PipelineVersionID: v.UID, DisplayName: versionTitle(v), Name: kfp.NameOf(&v.ObjectMeta),
		Description: v.Spec.Description, CreatedAt: stamp(v.CreationTimestamp), CodeSourceURL: v.Spec.CodeSourceURL,
		PipelineSpec: specMessage(v.Spec.PipelineSpec, v.Spec.PlatformSpec), Tags: v.Spec.Tags,
	}
	if v.Spec.PipelineSpecURI != "" {
		m.PackageURL = &packageURL{PipelineURL: v.Spec.PipelineSpecURI}
	}
	return m
}

// specMessage is a pipeline as clients see it: the IR, or both documents.
func specMessage(spec, platform json.RawMessage) json.RawMessage {
	if len(platform) == 0 || string(platform) == "null" || string(platform) == "{}" {
		return spec
	}
	both, err := json.Marshal(map[string]json.RawMessage{"pipeline_spec": spec, "platform_spec": platform})
	if err != nil {
		return spec // raw JSON that was checked when it was stored
	}
	return both
}

type listVersionsResponse struct {
	PipelineVersions []*pipelineVersion `json:"pipeline_versions,omitempty"`
	NextPageToken    string             `json:"next_page_token,omitempty"`
	TotalSize        int                `json:"total_size,omitempty"`
}

// pipelineOf is the pipeline of which a request lists or makes versions, once it may.
func (a *API) pipelineOf(r *http.Request, id string) (*kfp.Pipeline, error) {
	p, err := a.findPipeline(r.Context(), id)
	if err == nil {
		err = may(r, p.Namespace, "")
	}
	return p, err
}

func (a *API) listVersions(r *http.Request) (any, error) {
	p, err := a.pipelineOf(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	page, err := a.list(r.Context(), versionListing(), r.URL.Query(), p.Namespace, p.Name)
	if err != nil {
		return nil, err
	}
	answer := &listVersionsResponse{TotalSize: page.total, NextPageToken: page.next}
	for _, obj := range page.items {
		answer.PipelineVersions = append(answer.PipelineVersions, versionMessage(obj.(*kfp.PipelineVersion), p.UID))
	}
	return answer, nil
}

// findVersion is a version of a pipeline by their ids; the newest one where the
// version's is empty.
func (a *API) findVersion(ctx context.Context, pipelineID, versionID string) (*kfp.Pipeline, *kfp.PipelineVersion, error) {
	if pipelineID == "" && versionID != "" {
		v, err := find[*kfp.PipelineVersion](ctx, a, versionsKind, "pipeline version", versionID)
		if err != nil {
			return nil, nil, err
		}
		p, err := store.GetAs[*kfp.Pipeline](ctx, a.cfg.Store, store.Key{Kind: pipelinesKind, Namespace: v.Namespace, Name: v.Spec.PipelineName})
		return p, v, named(err, "pipeline", v.Spec.PipelineName)
	}
	p, err := a.findPipeline(ctx, pipelineID)
	if err != nil {
		return nil, nil, err
	}
	if versionID == "" {
		opts := versionsOf(p)
		opts.Limit = 1
		newest, _, err := store.ListAs[*kfp.PipelineVersion](ctx, a.cfg.Store, opts)
		if err != nil {
			return nil, nil, err
		}
		if len(newest) == 0 {
			return nil, nil, refuse(rpcNotFound, "pipeline %s has no version; upload one first", kfp.NameOf(&p.ObjectMeta))
		}
		return p, newest[0], nil
	}
	v, err := find[*kfp.PipelineVersion](ctx, a, versionsKind, "pipeline version", versionID)
	if err != nil {
		return nil, nil, err
	}
	if v.Spec.PipelineName != p.Name || v.Namespace != p.Namespace {
		return nil, nil, refuse(rpcNotFound, "pipeline %s has no version %s", pipelineID, versionID)
	}
	return p, v, nil
}

func (a *API) pathVersion(r *http.Request) (*kfp.Pipeline, *kfp.PipelineVersion, error) {
	p, v, err := a.findVersion(r.Context(), r.PathValue("name"), r.PathValue("version"))
	if err == nil {
		err = may(r, v.Namespace, v.Name)
	}
	return p, v, err
}

func (a *API) getVersion(r *http.Request) (any, error) {
	p, v, err := a.pathVersion(r)
	if err != nil {
		return nil, err
	}
	return versionMessage(v, p.UID), nil
}

func (a *API) createVersion(r *http.Request) (any, error) {
	var message pipelineVersion
	if _, err := body(r, &message); err != nil {
		return nil, err
	}
	p, err := a.pipelineOf(r, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if message.PipelineID != "" && message.PipelineID != p.UID {
		return nil, badRequest("pipeline_id: is %s in the body and %s in the path", message.PipelineID, p.UID)
	}
	v, err := a.newVersion(r.Context(), p, &message, nil)
	if err != nil {
		return nil, err
	}
	if err := a.keepVersion(r.Context(), v); err != nil {
		return nil, err
	}
	return versionMessage(v, p.UID), nil
}

func (a *API) keepVersion(ctx context.Context, v *kfp.PipelineVersion) error {
	_, err := a.cfg.Store.Commit(ctx, store.Op{Verb: store.Create, Kind: versionsKind, Object: v})
	return named(err, "pipeline version", kfp.NameOf(&v.ObjectMeta))
}

// newVersion makes the object of a version from its package: the file that came
// along, the message's own spec, or what is at its address.
func (a *API) newVersion(ctx context.Context, p *kfp.Pipeline, m *pipelineVersion, file *uploaded) (*kfp.PipelineVersion, error) {
	name := strings.TrimSpace(m.Name)
	if name == "" {
		name = strings.TrimSpace(m.DisplayName)
	}
	if name == "" && file == nil {
		name = kfp.NameOf(&p.ObjectMeta)
	}
	problems := kfp.ValidateNames(name, m.DisplayName, m.Description)
	if problems = append(problems, kfp.ValidateTags(m.Tags)...); len(problems) > 0 {
		return nil, problems
	}
	address := ""
	switch {
	case file != nil:
	case len(m.PipelineSpec) > 0 && m.PackageURL != nil && m.PackageURL.PipelineURL != "":
		return nil, badRequest("want either a pipeline_spec or a package_url, not both")
	case len(m.PipelineSpec) > 0:
		file = &uploaded{name: "pipeline_spec", data: m.PipelineSpec}
	case m.PackageURL != nil && m.PackageURL.PipelineURL != "":
		address = m.PackageURL.PipelineURL
		data, err := a.fetch(ctx, address)
		if err != nil {
			return nil, err
		}
		file = &uploaded{name: path.Base(address), data: data}
	default:
		return nil, badRequest("want a package_url.pipeline_url or a pipeline_spec; or upload a file to %s/pipelines/upload", base)
	}
	manifest, err := a.cfg.Engine.Inspect(ctx, p.Namespace, file.name, file.data)
	if err != nil {
		return nil, err
	}
	// The name is unique in its pipeline alone, an object's in its namespace.
	v := &kfp.PipelineVersion{
		TypeMeta: core.TypeMeta{APIVersion: kfp.ResourceAPIVersion, Kind: kfp.PipelineVersionKind},
		ObjectMeta: core.ObjectMeta{
			Name:      kfp.VersionObjectName(p.Name, name),
			Namespace: p.Namespace, UID: uuid.NewString(), Annotations: map[string]string{kfp.AnnotationName: name},
			OwnerReferences: []core.OwnerReference{{APIVersion: kfp.ResourceAPIVersion, Kind: kfp.PipelineKind, Name: p.Name, UID: p.UID}},
		},
		Spec: kfp.PipelineVersionSpec{
			DisplayName: m.DisplayName, Description: m.Description, PipelineName: p.Name, PipelineSpec: manifest.PipelineSpec,
			PlatformSpec: manifest.PlatformSpec, CodeSourceURL: m.CodeSourceURL, PipelineSpecURI: address, Tags: m.Tags,
		},
	}
	return v, nil
}

// updateVersion changes what people say of a version; what it runs never changes.
func (a *API) updateVersion(r *http.Request) (any, error) {
	var message pipelineVersion
	data, err := body(r, &message)
	if err != nil {
		return nil, err
	}
	p, v, err := a.pathVersion(r)
	if err != nil {
		return nil, err
	}
	if (message.PipelineVersionID != "" && message.PipelineVersionID != v.UID) || (message.PipelineID != "" && message.PipelineID != p.UID) ||
		(message.Name != "" && message.Name != kfp.NameOf(&v.ObjectMeta)) {
		return nil, badRequest("the name and the ids of a version cannot be changed")
	}
	problems := kfp.ValidateNames("-", message.DisplayName, message.Description)
	if problems = append(problems, kfp.ValidateTags(message.Tags)...); len(problems) > 0 {
		return nil, problems
	}
	given := members(data)
	v, err = change(r.Context(), a, versionsKind, "pipeline version", v, func(v *kfp.PipelineVersion) error {
		setIf(given["display_name"], &v.Spec.DisplayName, message.DisplayName)
		setIf(given["description"], &v.Spec.Description, message.Description)
		setIf(given["code_source_url"], &v.Spec.CodeSourceURL, message.CodeSourceURL)
		setIf(given["tags"], &v.Spec.Tags, message.Tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return versionMessage(v, p.UID), nil
}

func (a *API) deleteVersion(r *http.Request) (any, error) {
	_, v, err := a.pathVersion(r)
	if err != nil {
		return nil, err
	}
	_, err = a.cfg.Store.Commit(r.Context(), store.Op{Verb: store.Delete, Kind: versionsKind,
		Key: store.Key{Kind: versionsKind, Namespace: v.Namespace, Name: v.Name}})
	return empty(), named(err, "pipeline version", v.UID)
}

// members are the fields that a message has, by their snake_case names.
func members(data []byte) map[string]bool {
	var raw map[string]json.RawMessage
	given := map[string]bool{}
	if json.Unmarshal(data, &raw) != nil {
		return given // decode has refused it before
	}
	for key := range raw {
		given[snake(key)] = true
	}
	return given
}

// snake is the inverse of camel.
func snake(name string) string {
	var b strings.Builder
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// uploaded is a file that came with a request.
type uploaded struct {
	name string
	data []byte
}

// readUpload takes the file out of a form.
func readUpload(r *http.Request) (*uploaded, error) {
	reader, err := r.MultipartReader()
	if err != nil {
		return nil, badRequest("read the upload: %v; want multipart/form-data with the package in the field \"uploadfile\"", err)
	}
	for {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, badRequest("the form has no field \"uploadfile\"")
		}
		if err != nil {
			return nil, badRequest("read the upload: %v", err)
		}
		if part.FormName() != "uploadfile" {
			continue
		}
		return readPart(part)
	}
}

func readPart(part *multipart.Part) (*uploaded, error) {
	data, err := io.ReadAll(io.LimitReader(part, maxUpload+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the upload: %w", err)
	case len(data) > maxUpload:
		return nil, badRequest("the file has more than %d bytes", maxUpload)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, badRequest("the file is empty")
	}
	name := part.FileName()
	if name == "" {
		_, params, _ := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		name = params["filename"]
	}
	return &uploaded{name: path.Base(name), data: data}, nil
}

// tagsOf reads the query's tags, a JSON object.
func tagsOf(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var tags map[string]string
	if err := json.Unmarshal([]byte(text), &tags); err != nil {
		return nil, badRequest("tags: want a JSON object of texts, as in {\"team\":\"ml\"}")
	}
	return tags, nil
}

// uploadPipeline makes a pipeline with its first version, which has its name.
func (a *API) uploadPipeline(r *http.Request) (any, error) {
	values := r.URL.Query()
	// Asked before the file is read.
	if _, err := namespaceFor(r, values.Get("namespace")); err != nil {
		return nil, err
	}
	file, err := readUpload(r)
	if err != nil {
		return nil, err
	}
	tags, err := tagsOf(values.Get("tags"))
	if err != nil {
		return nil, err
	}
	message := &pipeline{Name: values.Get("name"), DisplayName: values.Get("display_name"), Description: values.Get("description"),
		Namespace: values.Get("namespace"), Tags: tags}
	if message.Name == "" && message.DisplayName == "" {
		message.Name = file.name
	}
	p, err := newPipeline(r, message)
	if err != nil {
		return nil, err
	}
	v, err := a.newVersion(r.Context(), p, &pipelineVersion{Name: kfp.NameOf(&p.ObjectMeta), DisplayName: message.DisplayName,
		Description: message.Description, CodeSourceURL: values.Get("code_source_url"), Tags: tags}, file)
	if err != nil {
		return nil, err
	}
	if err := a.keepPipeline(r.Context(), p, v); err != nil {
		return nil, err
	}
	return pipelineMessage(p), nil
}

func (a *API) uploadVersion(r *http.Request) (any, error) {
	values := r.URL.Query()
	if values.Get("pipelineid") == "" {
		return nil, problem.List{{Field: "pipelineid", Err: errors.New("is empty"), Hint: "say which pipeline the version is of"}}
	}
	p, err := a.pipelineOf(r, values.Get("pipelineid"))
	if err != nil {
		return nil, err
	}
	file, err := readUpload(r)
	if err != nil {
		return nil, err
	}
	tags, err := tagsOf(values.Get("tags"))
	if err != nil {
		return nil, err
	}
	message := &pipelineVersion{Name: values.Get("name"), DisplayName: values.Get("display_name"), Description: values.Get("description"),
		CodeSourceURL: values.Get("code_source_url"), Tags: tags}
	if message.Name == "" && message.DisplayName == "" {
		message.Name = file.name
	}
	v, err := a.newVersion(r.Context(), p, message, file)
	if err != nil {
		return nil, err
	}
	if err := a.keepVersion(r.Context(), v); err != nil {
		return nil, err
	}
	return versionMessage(v, p.UID), nil
}
