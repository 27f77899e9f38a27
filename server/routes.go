package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

// Paths of skiff's own endpoints.
const (
	group        = "skiff.dev"
	root         = "/apis/skiff.dev/v1alpha1"
	inNamespace  = root + "/namespaces/{namespace}"
	podNamespace = "/api/v1/namespaces/{namespace}"
)

// maxSubmission fits the largest package that the engine takes, in base64.
const maxSubmission = 64 << 20

// submissionTypes are the content types of a package sent as it is.
func submissionTypes() []string {
	return []string{
		"application/json", "application/yaml", "application/x-yaml", "application/zip",
		"application/gzip", "application/x-gzip", "application/octet-stream",
	}
}

// ownRoutes are the endpoints that are not plain resources.
func (s *Server) ownRoutes() []route.Route {
	routes := []route.Route{
		{Method: http.MethodGet, Path: "/livez", Verb: "get", Resource: "livez", Public: true, Handler: http.HandlerFunc(s.live)},
		{Method: http.MethodGet, Path: "/readyz", Verb: "get", Resource: "readyz", Public: true, Handler: http.HandlerFunc(s.ready)},
		{Method: http.MethodGet, Path: "/version", Verb: "get", Resource: "version", Handler: http.HandlerFunc(s.version)},
		{Method: http.MethodPost, Path: inNamespace + "/runs:submit", Verb: "create", Group: group, Resource: "runs",
			Accepts: submissionTypes(), MaxBody: maxSubmission, Handler: http.HandlerFunc(s.submit)},
		{Method: http.MethodGet, Path: inNamespace + "/runs/{name}/document", Verb: "get", Group: group, Resource: "runs",
			Handler: http.HandlerFunc(s.runDocument)},
		{Method: http.MethodGet, Path: inNamespace + "/tasks/{name}/log", Verb: "get", Group: group, Resource: "tasks",
			Subresource: "log", Stream: true, Handler: http.HandlerFunc(s.taskLog)},
		{Method: http.MethodGet, Path: podNamespace + "/pods/{name}/log", Verb: "get", Resource: "pods",
			Subresource: "log", Stream: true, Handler: http.HandlerFunc(s.podLog)},
		{Method: http.MethodGet, Path: root + "/node", Verb: "get", Group: group, Resource: "node", Handler: http.HandlerFunc(s.node)},
		{Method: http.MethodGet, Path: root + "/usage", Verb: "list", Group: group, Resource: "usage", Handler: http.HandlerFunc(s.usage)},
	}
	if s.cfg.Pods != nil {
		routes = append(routes,
			route.Route{Method: http.MethodPost, Path: inNamespace + "/tasks/{name}/debug", Verb: "create", Resource: "pods",
				Handler: http.HandlerFunc(s.debugTask)},
			route.Route{Method: http.MethodGet, Path: podNamespace + "/pods/{name}/exec", Verb: "create", Resource: "pods",
				Subresource: "exec", Stream: true, Handler: http.HandlerFunc(s.podExec)})
	}
	if s.cfg.Artifacts != nil {
		routes = append(routes, route.Route{Method: http.MethodGet, Path: inNamespace + "/artifacts/{name}/content", Verb: "get",
			Group: group, Resource: "artifacts", Subresource: "content", Handler: http.HandlerFunc(s.artifactContent)})
	}
	if s.cfg.Retention != nil {
		routes = append(routes, route.Route{Method: http.MethodPost, Path: inNamespace + "/artifacts:gc", Verb: "deletecollection",
			Group: group, Resource: "artifacts", Handler: http.HandlerFunc(s.purgeArtifacts)})
	}
	if s.cfg.Portable != nil {
		routes = append(routes, s.portableRoutes()...)
	}
	if s.cfg.Backup != nil {
		routes = append(routes, route.Route{Method: http.MethodGet, Path: root + "/backup", Verb: "get",
			Group: group, Resource: "backup", Handler: http.HandlerFunc(s.backup)})
	}
	return routes
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Ready != nil {
		select {
		case <-s.cfg.Ready:
		default:
			plain(w, http.StatusServiceUnavailable, "starting\n")
			return
		}
	}
	select {
	case <-s.draining:
		plain(w, http.StatusServiceUnavailable, "shutting down\n")
	default:
		plain(w, http.StatusOK, "ok\n")
	}
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	kube.WriteJSON(w, http.StatusOK, s.cfg.Version)
}

func (s *Server) node(w http.ResponseWriter, r *http.Request) {
	node, err := s.cfg.Node.Node(r.Context())
	if err != nil {
		kube.WriteError(w, fmt.Errorf("describe the node: %w", err))
		return
	}
	kube.WriteJSON(w, http.StatusOK, node)
}

func (s *Server) usage(w http.ResponseWriter, r *http.Request) {
	all, err := s.cfg.Logs.Usage(r.Context())
	if err != nil {
		kube.WriteError(w, fmt.Errorf("read what pods use: %w", err))
		return
	}
	if all == nil {
		all = []view.Usage{}
	}
	kube.WriteJSON(w, http.StatusOK, map[string]any{"items": all})
}

func (s *Server) runDocument(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	document, err := view.ReadRun(r.Context(), s.cfg.Store, r.PathValue("namespace"), name)
	if err != nil {
		kube.WriteError(w, notFoundAs(err, "runs.skiff.dev", name))
		return
	}
	kube.WriteJSON(w, http.StatusOK, document)
}

// notFoundAs words the store's answer as the resource API does.
func notFoundAs(err error, resource, name string) error {
	if status := kube.StatusOf(err); status.Code == http.StatusNotFound {
		return &kube.Error{Code: status.Code, Reason: status.Reason, Message: fmt.Sprintf("%s %q not found", resource, name)}
	}
	return err
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="skiff-backup.db"`)
	if err := s.cfg.Backup(r.Context(), w); err != nil {
		s.cfg.Logger.Error("backup broke off", "error", err)
		// The status is long sent; a connection that breaks tells the client
		// that what it has is not whole.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) artifactContent(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	obj, err := s.cfg.Store.Get(r.Context(), store.Key{Kind: "artifacts.skiff.dev", Namespace: r.PathValue("namespace"), Name: name})
	if err != nil {
		kube.WriteError(w, notFoundAs(err, "artifacts.skiff.dev", name))
		return
	}
	artifact := obj.(*skiff.Artifact)
	if why := artifact.Gone(); why != "" {
		kube.WriteError(w, gone(artifact, why))
		return
	}
	content, err := s.cfg.Artifacts.OpenArtifact(r.Context(), artifact)
	if err != nil {
		kube.WriteError(w, fmt.Errorf("open artifact %s: %w", name, err))
		return
	}
	defer func() { _ = content.Close() }()
	filename := name
	if content.Folder {
		filename += ".tar"
	}
	// What a step wrote is never shown by a browser as a page of this server.
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", filename))
	if content.Size >= 0 && !content.Folder {
		w.Header().Set("Content-Length", fmt.Sprint(content.Size))
	}
	if _, err := io.Copy(w, content); err != nil {
		s.cfg.Logger.Warn("artifact download broke off", "artifact", name, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// gone says why an artifact's contents cannot be had any more.
func gone(a *skiff.Artifact, why string) error {
	return &kube.Error{Code: http.StatusGone, Reason: "Gone", Message: fmt.Sprintf("artifact %s: %s", a.Name, why)}
}

// purgeArtifacts keeps a namespace to its retention, or to one of the request's,
// at once.
func (s *Server) purgeArtifacts(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var retention *skiff.Retention
	if text := query.Get("retain"); text != "" {
		parsed, err := skiff.ParseRetention(text)
		if err != nil {
			kube.WriteError(w, kube.BadRequest("retain: %v", err))
			return
		}
		retention = &parsed
	}
	report, err := s.cfg.Retention.Purge(r.Context(), r.PathValue("namespace"), retention, query.Get("dryRun") == "All")
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	kube.WriteJSON(w, http.StatusOK, report)
}

// submit takes a package: raw, with the options in the query, or in a JSON
// document with the package in base64.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) {
	submission, err := readSubmission(r)
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	if r.URL.Query().Get("dryRun") == "All" {
		if err := s.cfg.Pipelines.Check(r.Context(), *submission); err != nil {
			kube.WriteError(w, err)
			return
		}
		kube.WriteJSON(w, http.StatusOK, kube.Status{Kind: "Status", APIVersion: "v1", Status: "Success", Code: http.StatusOK})
		return
	}
	run, err := s.cfg.Pipelines.Submit(r.Context(), *submission)
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	kube.WriteJSON(w, http.StatusCreated, run)
}

func readSubmission(r *http.Request) (*Submission, error) {
	submission := &Submission{}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the package: %w", err)
	}
	query := r.URL.Query()
	if r.Header.Get("Content-Type") == "application/json" {
		if err := json.Unmarshal(body, submission); err != nil {
			return nil, kube.BadRequest("the body is not a submission: %v; want a JSON object with the pipeline package in base64 "+
				"under \"package\", or the package itself with content type application/yaml", err)
		}
	} else {
		submission.Package = body
		submission.Filename = query.Get("filename")
		submission.DisplayName = query.Get("displayName")
		submission.PipelineRoot = query.Get("pipelineRoot")
		if text := query.Get("parameters"); text != "" {
			if err := json.Unmarshal([]byte(text), &submission.Parameters); err != nil {
				return nil, kube.BadRequest("parameters: want a JSON object: %v", err)
			}
		}
		for name, target := range map[string]*bool{
			"disableCache": &submission.DisableCache, "verbatim": &submission.Verbatim, "checkImages": &submission.CheckImages,
		} {
			*target = query.Get(name) == "true"
		}
	}
	if len(submission.Package) == 0 && submission.Resume == nil {
		return nil, kube.BadRequest("there is no pipeline package in the request")
	}
	submission.Namespace = r.PathValue("namespace")
	return submission, nil
}
