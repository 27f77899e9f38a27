package portable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// ExportRequest says what is exported: one of Pipeline and Run, by the names of
// their objects.
type ExportRequest struct {
	Namespace     string
	Pipeline, Run string
	// Runs takes the ended runs of a pipeline along, Artifacts the contents of
	// the runs' artifacts, Images the container images.
	Runs, Artifacts, Images bool
	Compression             bundle.Compression
}

// Export is a bundle that is ready to be written. Close must be called.
type Export struct {
	manifest *bundle.Manifest
	how      bundle.Compression
	// sources open the manifest's entries, in its order.
	sources []func() (io.ReadCloser, error)
	spools  []*os.File
}

// Manifest says what the bundle will hold.
func (e *Export) Manifest() *bundle.Manifest { return e.manifest }

// Close lets go of what was put together.
func (e *Export) Close() error {
	var err error
	for _, f := range e.spools {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Write writes the bundle, once. After an error what was written is no bundle;
// one of class bundle.ErrChanged says that another try may succeed.
func (e *Export) Write(ctx context.Context, w io.Writer) error {
	out, err := bundle.NewWriter(w, e.manifest, e.how)
	if err != nil {
		return err
	}
	q := &queue{e: e}
	defer q.close()
	for i := range e.sources {
		if err := context.Cause(ctx); err != nil {
			return errors.Join(err, out.Close())
		}
		contents, err := q.next()
		if err == nil {
			err = errors.Join(out.Add(contents), contents.Close())
		}
		if err != nil {
			_ = out.Close() // it says no more than that entries are missing
			return fmt.Errorf("export %s: %w", e.manifest.Entries[i].Path, err)
		}
	}
	return out.Close()
}

const (
	// queueBytes of contents, at least, are asked of the disk while what comes
	// before them is written, and queueFiles are open then at most.
	queueBytes = 4 << 20
	queueFiles = 32
)

// queue opens an export's sources a little before their turn, so that the disk
// does not rest between small files.
type queue struct {
	e *Export
	// open are those before opened, oldest first; bytes is what they hold.
	open   []source
	opened int
	bytes  int64
}

type source struct {
	contents io.ReadCloser
	err      error
	size     int64
}

// next is the source whose turn it is. The caller closes it.
func (q *queue) next() (io.ReadCloser, error) {
	for q.opened < len(q.e.sources) && (len(q.open) == 0 || q.bytes < queueBytes && len(q.open) < queueFiles) {
		s := source{size: q.e.manifest.Entries[q.opened].Size}
		s.contents, s.err = q.e.sources[q.opened]()
		q.opened++
		q.open, q.bytes = append(q.open, s), q.bytes+s.size
	}
	s := q.open[0]
	q.open, q.bytes = q.open[1:], q.bytes-s.size
	return s.contents, s.err
}

// close closes what had no turn.
func (q *queue) close() {
	for _, s := range q.open {
		if s.err == nil {
			_ = s.contents.Close() // it was only read
		}
	}
}

// add puts an entry behind the others.
func (e *Export) add(entry bundle.Entry, open func() (io.ReadCloser, error)) {
	e.manifest.Entries = append(e.manifest.Entries, entry)
	e.sources = append(e.sources, open)
}

// gathering is an Export in the making.
type gathering struct {
	p   *Porter
	req ExportRequest
	*Export

	spool *spool
	needs *needs
	// manifests are the names of manifests whose needs are noted.
	manifests map[string]bool
	// artifacts are those of all runs, by name.
	artifacts map[string]*skiff.Artifact
	// images are what runs recorded: digest → references.
	images map[string][]string
}

// Export puts a bundle together. Refusals are of class problem.ErrInvalid, what
// is not there of class store.ErrNotFound.
func (p *Porter) Export(ctx context.Context, req ExportRequest) (_ *Export, err error) {
	g := &gathering{
		p: p, req: req, needs: newNeeds(), manifests: map[string]bool{}, artifacts: map[string]*skiff.Artifact{}, images: map[string][]string{},
		Export: &Export{how: req.Compression, manifest: &bundle.Manifest{
			Format: bundle.Format, Version: bundle.Version, Created: p.cfg.Now().UTC(), Skiff: p.cfg.Version,
			Store: p.cfg.Store.ID(), Namespace: req.Namespace,
		}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if g.spool, err = p.newSpool(); err != nil {
		return nil, err
	}
	g.spools = append(g.spools, g.spool.file)
	switch {
	case (req.Pipeline == "") == (req.Run == ""):
		return nil, refuse("export", "", "want a pipeline or a run")
	case req.Pipeline != "" && req.Artifacts && !req.Runs:
		return nil, refuse("export", "ask for the runs too, or export one run", "a pipeline itself has no artifacts; its runs have")
	case req.Images && p.cfg.Images == nil:
		return nil, refuse("export", "leave the images out, or run the daemon with Docker", "this runtime has no container images")
	case req.Pipeline != "":
		err = g.pipeline(ctx)
	default:
		err = g.run(ctx, req.Run)
	}
	if err != nil {
		return nil, err
	}
	if err := g.spool.flush(); err != nil {
		return nil, err
	}
	if req.Artifacts {
		if err := g.contents(ctx); err != nil {
			return nil, err
		}
	}
	if err := g.imageEntries(ctx); err != nil {
		return nil, err
	}
	g.manifest.Needs = g.needs.list()
	return g.Export, nil
}

// pipeline gathers a pipeline, its versions and, where asked, its runs.
func (g *gathering) pipeline(ctx context.Context) error {
	key := store.Key{Kind: pipelinesKind, Namespace: g.req.Namespace, Name: g.req.Pipeline}
	p, err := store.GetAs[*kfp.Pipeline](ctx, g.p.cfg.Store, key)
	if err != nil {
		return fmt.Errorf("export pipeline %s: %w", g.req.Pipeline, err)
	}
	entry := g.spool.begin(bundle.ObjectsDir + "/pipelines/" + p.Name + ".jsonl")
	if err := entry.object(p); err != nil {
		return err
	}
	versions, _, err := store.AllAs[*kfp.PipelineVersion](ctx, g.p.cfg.Store, store.ListOptions{
		Kind: versionsKind, Namespace: p.Namespace, Index: byPipeline, Prefix: p.Name + separator,
	})
	if err != nil {
		return fmt.Errorf("export pipeline %s: %w", p.Name, err)
	}
	slices.Reverse(versions) // oldest first
	for _, v := range versions {
		if err := g.needs.add(v.Spec.PipelineSpec, v.Spec.PlatformSpec); err != nil {
			return fmt.Errorf("export version %s of pipeline %s: %w", kfp.NameOf(&v.ObjectMeta), p.Name, err)
		}
		if err := entry.object(v); err != nil {
			return err
		}
	}
	g.add(entry.end())
	g.manifest.Pipelines = append(g.manifest.Pipelines, bundle.Pipeline{Name: p.Name, ID: p.UID, Versions: len(versions)})
	if !g.req.Runs {
		return nil
	}
	return g.runsOf(ctx, p, versions)
}

// runsOf gathers the ended runs of a pipeline: those that were made from it, and
// those of the same compiled form that were handed in by themselves.
func (g *gathering) runsOf(ctx context.Context, p *kfp.Pipeline, versions []*kfp.PipelineVersion) error {
	manifests := map[string]bool{}
	for _, v := range versions {
		manifest, err := g.p.manifestOf(ctx, g.req.Namespace, v.Spec.PipelineSpec, v.Spec.PlatformSpec)
		if err != nil {
			return fmt.Errorf("export the runs of pipeline %s: %w", p.Name, err)
		}
		manifests[manifest.Name] = true
	}
	opts := store.ListOptions{Kind: runsKind, Namespace: g.req.Namespace, Index: byCreation}
	for {
		page, err := g.p.cfg.Store.List(ctx, opts)
		if err != nil {
			return fmt.Errorf("export the runs of pipeline %s: %w", p.Name, err)
		}
		for _, obj := range page.Items {
			run := obj.(*skiff.Run)
			from := run.Spec.PipelineVersion
			if !run.Status.State.Terminal() || (!manifests[run.Spec.Manifest] && (from == nil || from.PipelineID != p.UID)) {
				continue
			}
			if err := g.run(ctx, run.Name); err != nil {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

// run gathers a run with everything that says what it was.
func (g *gathering) run(ctx context.Context, name string) error {
	s, namespace := g.p.cfg.Store, g.req.Namespace
	run, err := store.GetAs[*skiff.Run](ctx, s, store.Key{Kind: runsKind, Namespace: namespace, Name: name})
	if err != nil {
		return fmt.Errorf("export run %s: %w", name, err)
	}
	if !run.Status.State.Terminal() {
		return refuse("run "+name, "wait for its end, or cancel it", "it is %s; only a run that has ended can be exported", run.Status.State)
	}
	entry := g.spool.begin(bundle.ObjectsDir + "/runs/" + run.Name + ".jsonl")
	manifest, err := store.GetAs[*skiff.PipelineManifest](ctx, s, store.Key{Kind: manifestsKind, Namespace: namespace, Name: run.Spec.Manifest})
	if err != nil {
		return fmt.Errorf("export run %s: its pipeline: %w", name, err)
	}
	if !g.manifests[manifest.Name] {
		g.manifests[manifest.Name] = true
		if err := g.needs.add(manifest.PipelineSpec, manifest.PlatformSpec); err != nil {
			return fmt.Errorf("export run %s: %w", name, err)
		}
	}
	if err := entry.object(manifest); err != nil {
		return err
	}
	if run.Spec.Experiment != "" && run.Spec.Experiment != skiff.DefaultExperiment(namespace) {
		experiment, err := s.Get(ctx, store.Key{Kind: experimentsKind, Namespace: namespace, Name: run.Spec.Experiment})
		switch {
		case err == nil:
			err = entry.object(experiment)
		case errors.Is(err, store.ErrNotFound):
			err = nil // deleted; the run is the default one's where it goes
		}
		if err != nil {
			return fmt.Errorf("export run %s: %w", name, err)
		}
	}
	if err := entry.object(run); err != nil {
		return err
	}
	if err := g.tasks(ctx, run, entry); err != nil {
		return fmt.Errorf("export run %s: %w", name, err)
	}
	g.add(entry.end())
	g.manifest.Runs = append(g.manifest.Runs, bundle.Run{
		ID: run.Name, DisplayName: run.Spec.DisplayName, Pipeline: run.Spec.PipelineName, State: string(run.Status.State),
	})
	return nil
}

// tasks writes a run's tasks and artifacts, and the artifacts of other runs that
// its tasks took their results from.
func (g *gathering) tasks(ctx context.Context, run *skiff.Run, entry *spooled) error {
	s := g.p.cfg.Store
	mine := map[string]bool{}
	for _, names := range run.Status.OutputArtifacts {
		note(mine, names)
	}
	err := each(ctx, s, tasksKind, run, func(t *skiff.Task) error {
		for _, part := range []map[string][]string{t.Status.InputArtifacts, t.Status.OutputArtifacts} {
			for _, names := range part {
				note(mine, names)
			}
		}
		if digest := t.Status.ImageDigest; digest != "" && !slices.Contains(g.images[digest], t.Status.Image) {
			g.images[digest] = append(g.images[digest], t.Status.Image)
		}
		return entry.object(t)
	})
	if err != nil {
		return err
	}
	err = each(ctx, s, artifactsKind, run, func(a *skiff.Artifact) error {
		mine[a.Name] = true
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(mine) {
		a, err := store.GetAs[*skiff.Artifact](ctx, s, store.Key{Kind: artifactsKind, Namespace: run.Namespace, Name: name})
		if errors.Is(err, store.ErrNotFound) {
			continue // deleted; the task still says what it was called
		}
		if err != nil {
			return err
		}
		if err := g.p.hash(ctx, a); err != nil {
			return err
		}
		if g.artifacts[name] == nil {
			g.artifacts[name] = a
		}
		if err := entry.object(a); err != nil {
			return err
		}
	}
	return nil
}

// hash makes sure that an artifact whose contents are here has its digest.
func (p *Porter) hash(ctx context.Context, a *skiff.Artifact) error {
	if a.Status.Digest != "" || a.Status.Missing || !p.here(a) {
		return nil
	}
	digest, err := p.cfg.Artifacts.Digest(ctx, a.Namespace, a.Spec.URI)
	if err != nil {
		return fmt.Errorf("artifact %s: %w", a.Name, err)
	}
	changed, err := store.ModifyAs(ctx, p.cfg.Store, store.Key{Kind: artifactsKind, Namespace: a.Namespace, Name: a.Name}, func(now *skiff.Artifact) error {
		now.Status.Digest = digest.Digest
		return nil
	})
	if err == nil {
		*a = *changed
	}
	return err
}

// HashRun makes sure that all artifacts of a run have their digests, as far as
// their contents are here.
func (p *Porter) HashRun(ctx context.Context, run *skiff.Run) error {
	var all []*skiff.Artifact
	err := each(ctx, p.cfg.Store, artifactsKind, run, func(a *skiff.Artifact) error {
		all = append(all, a)
		return nil
	})
	for _, a := range all {
		if err == nil {
			err = p.hash(ctx, a)
		}
	}
	if err != nil {
		return fmt.Errorf("hash the artifacts of run %s: %w", run.Name, err)
	}
	return nil
}

// here reports whether an artifact's contents are in the repository.
func (p *Porter) here(a *skiff.Artifact) bool {
	_, err := p.cfg.Artifacts.Locate(a.Namespace, a.Spec.URI)
	return err == nil && p.cfg.Artifacts.Exists(a.Namespace, a.Spec.URI)
}

// imageEntries lists the images that runs recorded and that pipelines name, and
// saves them where they are asked for.
func (g *gathering) imageEntries(ctx context.Context) error {
	known := map[string]bool{}
	for _, digest := range sortedKeys(g.images) {
		refs := slices.Sorted(slices.Values(g.images[digest]))
		for _, ref := range refs {
			known[ref] = true
		}
		g.manifest.Images = append(g.manifest.Images, bundle.Image{Refs: refs, Digest: digest})
	}
	for _, ref := range sortedKeys(g.needs.images) {
		if !known[ref] {
			g.manifest.Images = append(g.manifest.Images, bundle.Image{Refs: []string{ref}})
		}
	}
	if !g.req.Images {
		return nil
	}
	for i := range g.manifest.Images {
		if err := g.saveImage(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) saveImage(ctx context.Context, i int) error {
	image := &g.manifest.Images[i]
	var identities []string
	if image.Digest != "" {
		identities = append(identities, image.Digest)
	}
	id, archive, err := g.p.cfg.Images.SaveImage(ctx, image.Refs[0], identities)
	if err != nil {
		return fmt.Errorf("export image %s: %w", image.Refs[0], err)
	}
	// Its size is known only when it is read; the manifest comes first.
	s, err := g.p.newSpool()
	if err != nil {
		return errors.Join(err, archive.Close())
	}
	g.spools = append(g.spools, s.file)
	entry := s.begin(fmt.Sprintf("%s/%d.tar", bundle.ImagesDir, i))
	_, err = io.Copy(entry, archive)
	if err = errors.Join(err, archive.Close()); err == nil {
		err = s.flush()
	}
	if err != nil {
		return fmt.Errorf("export image %s: %w", image.Refs[0], err)
	}
	image.ID = id
	listed, open := entry.end()
	image.Entry = listed.Path
	g.add(listed, open)
	return nil
}

func note(set map[string]bool, names []string) {
	for _, name := range names {
		set[name] = true
	}
}

// each calls fn for every object of a kind that belongs to a run.
func each[T any](ctx context.Context, s store.Interface, kind string, run *skiff.Run, fn func(T) error) error {
	opts := store.ListOptions{Kind: kind, Namespace: run.Namespace, Index: byRun, Prefix: run.Name, Exact: true}
	for {
		page, err := s.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, obj := range page.Items {
			if err := fn(any(obj).(T)); err != nil {
				return err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// nodeEntry is the path in a bundle of a file of an artifact.
func nodeEntry(a *skiff.Artifact, n artifact.Node) string {
	return strings.TrimSuffix(bundle.ArtifactsDir+"/"+a.Name+"/"+n.Path, "/")
}
