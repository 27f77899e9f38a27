package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

// Portable carries pipelines and runs to other skiffs and takes theirs in.
type Portable interface {
	// Export puts a bundle together; a refusal is of class problem.ErrInvalid.
	Export(ctx context.Context, r ExportRequest) (Exported, error)
	// Import takes a bundle in, all of it or nothing.
	Import(ctx context.Context, r ImportRequest, body io.Reader) (*ImportReport, error)
	// Reproduce makes a run that does an ended one again.
	Reproduce(ctx context.Context, namespace, run string, anyImage bool) (*skiff.Run, error)
	// HashRun makes sure that a run's artifacts have their digests.
	HashRun(ctx context.Context, run *skiff.Run) error
}

// ExportRequest says what is exported: one of Pipeline and Run.
type ExportRequest struct {
	Namespace               string
	Pipeline, Run           string
	Runs, Artifacts, Images bool
	Compression             bundle.Compression
}

// Exported is a bundle that is ready to be written, once. Close must be called.
type Exported interface {
	Manifest() *bundle.Manifest
	Write(ctx context.Context, w io.Writer) error
	Close() error
}

// ImportRequest says where a bundle goes.
type ImportRequest struct {
	Namespace string
	// As gives a pipeline another name; DryRun only checks.
	As     string
	DryRun bool
}

// ImportReport is what an import did, or would do. Its JSON names are stable.
type ImportReport struct {
	Namespace string `json:"namespace"`
	DryRun    bool   `json:"dry_run,omitempty"`
	// Created and Present name pipelines, versions and runs, as "run ID".
	Created []string `json:"created"`
	Present []string `json:"present"`
	// Artifacts counts the artifacts whose contents came, Images the images that
	// were not here, Bytes all that was read, unpacked.
	Artifacts int   `json:"artifacts"`
	Images    int   `json:"images"`
	Bytes     int64 `json:"bytes"`
	// Missing is what steps need that is not here.
	Missing []bundle.Need `json:"missing"`
}

const (
	// transferTimeout is how long a bundle may stand still on its way.
	transferTimeout = 2 * time.Minute
	// maxForeignPackage is the largest package that is taken for a pipeline.
	maxForeignPackage = 32 << 20
	// BundleSizeHeader tells how many bytes a bundle has unpacked.
	BundleSizeHeader = "Skiff-Bundle-Size"
)

// bundleTypes are the content types of bundles and packages.
func bundleTypes() []string {
	return []string{"application/gzip", "application/x-gzip", "application/x-tar", "application/zip", "application/yaml", "application/octet-stream"}
}

// portableRoutes are the endpoints of bundles.
func (s *Server) portableRoutes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Path: inNamespace + "/pipelines/{name}/bundle", Verb: "get", Group: group, Resource: "pipelines",
			Subresource: "bundle", Stream: true, Handler: s.exportOf("pipelines.pipelines.kubeflow.org", func(r *ExportRequest, name string) { r.Pipeline = name })},
		{Method: http.MethodGet, Path: inNamespace + "/runs/{name}/bundle", Verb: "get", Group: group, Resource: "runs",
			Subresource: "bundle", Stream: true, Handler: s.exportOf("runs.skiff.dev", func(r *ExportRequest, name string) { r.Run = name })},
		{Method: http.MethodPost, Path: inNamespace + "/bundles", Verb: "create", Group: group, Resource: "bundles", Stream: true,
			Accepts: bundleTypes(), MaxBody: math.MaxInt64, LongBody: transferTimeout, Handler: http.HandlerFunc(s.importBundle)},
		{Method: http.MethodPost, Path: inNamespace + "/runs/{name}/reproduction", Verb: "create", Group: group, Resource: "runs",
			Handler: http.HandlerFunc(s.reproduce)},
		{Method: http.MethodGet, Path: inNamespace + "/runs/{name}/reproduction", Verb: "get", Group: group, Resource: "runs",
			Subresource: "reproduction", Handler: http.HandlerFunc(s.reproduction)},
	}
}

// exportOf streams bundles of one resource.
func (s *Server) exportOf(resource string, set func(r *ExportRequest, name string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := exportRequest(r)
		if err != nil {
			kube.WriteError(w, err)
			return
		}
		set(&req, r.PathValue("name"))
		s.export(w, r, req, resource)
	})
}

// exportRequest reads the query.
func exportRequest(r *http.Request) (ExportRequest, error) {
	req := ExportRequest{Namespace: r.PathValue("namespace")}
	query := r.URL.Query()
	for key, target := range map[string]*bool{"runs": &req.Runs, "artifacts": &req.Artifacts, "images": &req.Images} {
		*target = isTrue(query.Get(key))
	}
	switch how := query.Get("compression"); how {
	case "", "stored":
		req.Compression = bundle.Stored
	case "squeezed":
		req.Compression = bundle.Squeezed
	case "none":
		req.Compression = bundle.Uncompressed
	default:
		return req, kube.BadRequest("compression %q: want stored, squeezed or none", how)
	}
	return req, nil
}

// export puts a bundle together before the first byte is sent, so that a refusal
// has its status.
func (s *Server) export(w http.ResponseWriter, r *http.Request, req ExportRequest, resource string) {
	name := r.PathValue("name")
	file, err := handed(r)
	if err != nil {
		kube.WriteError(w, err)
		return
	}
	if file != nil {
		defer func() { _ = file.Close() }() // the client syncs it
	}
	exported, err := s.cfg.Portable.Export(r.Context(), req)
	if err != nil {
		kube.WriteError(w, notFoundAs(err, resource, name))
		return
	}
	defer func() { _ = exported.Close() }()
	if file != nil {
		s.exportTo(w, r, exported, file)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name+".tar.gz"))
	header.Set(BundleSizeHeader, strconv.FormatInt(exported.Manifest().Size(), 10))
	out := &timedWriter{w: w, control: http.NewResponseController(w)}
	if err := exported.Write(r.Context(), out); err != nil {
		s.cfg.Logger.Warn("export broke off", "name", name, "error", err)
		// The status is long sent; a connection that breaks tells the client
		// that what it has is not whole.
		panic(http.ErrAbortHandler)
	}
}

// exportTo writes a bundle to the client's own file. The client is told its size
// at once and how it went at the end.
func (s *Server) exportTo(w http.ResponseWriter, r *http.Request, exported Exported, file *os.File) {
	w.Header().Set(BundleSizeHeader, strconv.FormatInt(exported.Manifest().Size(), 10))
	w.WriteHeader(http.StatusProcessing)
	if err := writeFile(r.Context(), file, exported); err != nil {
		s.cfg.Logger.Warn("export broke off", "name", r.PathValue("name"), "error", err)
		kube.WriteError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// timedWriter gives each write its own time.
type timedWriter struct {
	w       io.Writer
	control *http.ResponseController
}

// Write implements io.Writer.
func (t *timedWriter) Write(p []byte) (int, error) {
	_ = t.control.SetWriteDeadline(time.Now().Add(transferTimeout))
	return t.w.Write(p)
}

// importBundle takes a bundle, or a package of Kubeflow Pipelines as a pipeline.
func (s *Server) importBundle(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	req := ImportRequest{Namespace: r.PathValue("namespace"), As: query.Get("as"), DryRun: query.Get("dryRun") == "All"}
	// A refusal is sent while the client still sends; where that is not possible
	// it follows the body.
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()
	report, err := s.importFrom(r, req, query.Get("filename"))
	if err == nil {
		kube.WriteJSON(w, http.StatusOK, report)
		return
	}
	w.Header().Set("Connection", "close")
	kube.WriteError(w, err)
	_ = control.Flush()
	// A connection that is closed over what was not read takes the answer along.
	_, _ = io.Copy(io.Discard, r.Body)
}

func (s *Server) importFrom(r *http.Request, req ImportRequest, filename string) (*ImportReport, error) {
	file, err := handed(r)
	if err != nil {
		return nil, err
	}
	source := io.Reader(r.Body)
	if file != nil {
		defer func() { _ = file.Close() }() // it was only read
		source = readFile(r.Context(), file)
	}
	body := bufio.NewReaderSize(source, bundle.SniffBytes)
	head, err := body.Peek(bundle.SniffBytes)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read the bundle: %w", err)
	case bundle.Sniff(head):
		return s.cfg.Portable.Import(r.Context(), req, body)
	default:
		return s.importPackage(r.Context(), req, filename, body)
	}
}

// importPackage keeps what KFP's compiler wrote.
func (s *Server) importPackage(ctx context.Context, req ImportRequest, filename string, body io.Reader) (*ImportReport, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxForeignPackage+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the package: %w", err)
	case len(data) == 0:
		return nil, kube.BadRequest("there is no bundle in the request")
	case len(data) > maxForeignPackage:
		return nil, &kube.Error{Code: http.StatusRequestEntityTooLarge, Reason: "RequestEntityTooLarge", Message: fmt.Sprintf(
			"this is no bundle of skiff's, whose first entry would be %s, and too large for a compiled pipeline", bundle.ManifestName)}
	}
	kept, err := s.kfp.Keep(ctx, req.Namespace, req.As, filename, data, req.DryRun)
	if err != nil {
		return nil, err
	}
	report := &ImportReport{Namespace: req.Namespace, DryRun: req.DryRun, Created: []string{}, Present: []string{}, Bytes: int64(len(data)), Missing: []bundle.Need{}}
	names := []string{"pipeline " + kept.Pipeline, "pipeline version " + kept.Version}
	if kept.Present {
		report.Present = names
	} else {
		report.Created = names
	}
	return report, nil
}

func (s *Server) reproduce(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	run, err := s.cfg.Portable.Reproduce(r.Context(), r.PathValue("namespace"), name, isTrue(r.URL.Query().Get("anyImage")))
	if err != nil {
		kube.WriteError(w, notFoundAs(err, "runs.skiff.dev", name))
		return
	}
	kube.WriteJSON(w, http.StatusCreated, run)
}

// reproduction compares a run that reproduces another with that.
func (s *Server) reproduction(w http.ResponseWriter, r *http.Request) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	again, err := s.endedRun(r.Context(), namespace, name)
	if err == nil && again.Spec.Reproduces == "" {
		err = kube.BadRequest("run %s reproduces no other; \"skiff reproduce %s\" makes a run that does it again", name, name)
	}
	var document *view.Reproduction
	if err == nil {
		document, err = s.compareRuns(r.Context(), again)
	}
	if err != nil {
		kube.WriteError(w, notFoundAs(err, "runs.skiff.dev", name))
		return
	}
	kube.WriteJSON(w, http.StatusOK, document)
}

// endedRun is a run that has ended.
func (s *Server) endedRun(ctx context.Context, namespace, name string) (*skiff.Run, error) {
	run, err := store.GetAs[*skiff.Run](ctx, s.cfg.Store, store.Key{Kind: "runs.skiff.dev", Namespace: namespace, Name: name})
	if err == nil && !run.Status.State.Terminal() {
		err = &kube.Error{Code: http.StatusConflict, Reason: "Conflict", Message: fmt.Sprintf("run %s is %s; what came of it is known when it has ended", name, run.Status.State)}
	}
	return run, err
}

func (s *Server) compareRuns(ctx context.Context, again *skiff.Run) (*view.Reproduction, error) {
	original, err := s.endedRun(ctx, again.Namespace, again.Spec.Reproduces)
	if err != nil {
		return nil, err
	}
	var documents [2]*view.Run
	for i, run := range []*skiff.Run{original, again} {
		if err := s.cfg.Portable.HashRun(ctx, run); err != nil {
			return nil, err
		}
		if documents[i], err = view.BuildRun(ctx, s.cfg.Store, run); err != nil {
			return nil, err
		}
	}
	return view.Reproduce(documents[0], documents[1], func(a, b string) bool {
		return a == b || (original.Status.Imported != nil && original.Status.Imported.Images[a] == b)
	}), nil
}
