package portable

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store/artifact"
)

// damaged is the hint where only another bundle helps.
const damaged = "the bundle was changed or damaged; export it anew"

// manifestOf checks a compiled pipeline and gives the manifest of its runs.
func (p *Porter) manifestOf(ctx context.Context, namespace string, spec, platform json.RawMessage) (*skiff.PipelineManifest, error) {
	parts := map[string]json.RawMessage{"pipelineSpec": spec}
	if len(platform) > 0 {
		parts["platformSpec"] = platform
	}
	data, err := json.Marshal(parts)
	if err != nil {
		return nil, err
	}
	return p.cfg.Inspect(ctx, namespace, "", data)
}

// cargo is what a bundle's entries of objects hold, checked by themselves.
type cargo struct {
	namespace string
	pipelines []*kfp.Pipeline
	versions  []*kfp.PipelineVersion
	// The rest by name: runs share manifests, experiments and artifacts.
	manifests   map[string]*skiff.PipelineManifest
	experiments map[string]*skiff.Experiment
	runs        map[string]*skiff.Run
	tasks       map[string]*skiff.Task
	artifacts   map[string]*skiff.Artifact
}

func newCargo(namespace string) *cargo {
	return &cargo{
		namespace: namespace, manifests: map[string]*skiff.PipelineManifest{}, experiments: map[string]*skiff.Experiment{},
		runs: map[string]*skiff.Run{}, tasks: map[string]*skiff.Task{}, artifacts: map[string]*skiff.Artifact{},
	}
}

// read takes the objects of one entry in.
func (c *cargo) read(ctx context.Context, entry string, contents io.Reader) error {
	folder, file := path.Split(strings.TrimPrefix(entry, bundle.ObjectsDir+"/"))
	name, isLines := strings.CutSuffix(file, ".jsonl")
	if !isLines || (folder != "pipelines/" && folder != "runs/") {
		return refuse(entry, damaged, "there are no such objects")
	}
	decoder := json.NewDecoder(contents)
	for n := 0; ; n++ {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return c.complete(entry, folder, name)
		}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
			return refuse(entry, damaged, "object %d is not JSON: %w", n+1, err)
		}
		if err == nil {
			err = c.object(raw, folder)
		}
		if err != nil {
			return fmt.Errorf("%s: object %d: %w", entry, n+1, err)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// complete checks that an entry held the object that it is named after.
func (c *cargo) complete(entry, folder, name string) error {
	found := c.runs[name] != nil
	if folder == "pipelines/" {
		found = slices.ContainsFunc(c.pipelines, func(p *kfp.Pipeline) bool { return p.Name == name })
	}
	if !found {
		return refuse(entry, damaged, "it does not hold %s", name)
	}
	return nil
}

// object decodes one object into its place. What this skiff does not know is
// refused: it would be lost.
func (c *cargo) object(raw json.RawMessage, folder string) error {
	var typ core.TypeMeta
	if err := json.Unmarshal(raw, &typ); err != nil {
		return refuse("object", damaged, "it is no object: %w", err)
	}
	switch typ.Kind + " of " + folder {
	case kfp.PipelineKind + " of pipelines/":
		return take(raw, func(p *kfp.Pipeline) bool { c.pipelines = append(c.pipelines, p); return true })
	case kfp.PipelineVersionKind + " of pipelines/":
		return take(raw, func(v *kfp.PipelineVersion) bool { c.versions = append(c.versions, v); return true })
	case skiff.PipelineManifestKind + " of runs/":
		return take(raw, func(m *skiff.PipelineManifest) bool { return put(c.manifests, m, true) })
	case skiff.ExperimentKind + " of runs/":
		return take(raw, func(e *skiff.Experiment) bool { return put(c.experiments, e, true) })
	case skiff.RunKind + " of runs/":
		return take(raw, func(r *skiff.Run) bool { return put(c.runs, r, false) })
	case skiff.TaskKind + " of runs/":
		return take(raw, func(t *skiff.Task) bool { return put(c.tasks, t, false) })
	case skiff.ArtifactKind + " of runs/":
		return take(raw, func(a *skiff.Artifact) bool { return put(c.artifacts, a, true) })
	}
	return refuse("object", "import it with the skiff that wrote it, or a newer one", "the kind %.80q has no place in %s%s", typ.Kind, bundle.ObjectsDir+"/", folder)
}

// take decodes an object and puts it away.
func take[T any](raw json.RawMessage, away func(*T) bool) error {
	obj := new(T)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(obj); err != nil {
		return refuse("object", "import it with the skiff that wrote it, or a newer one", "it is not what this skiff knows: %w", err)
	}
	meta := any(obj).(core.Object).Metadata()
	if !core.IsDNSSubdomain(meta.Name) {
		return refuse("object", damaged, "its name is %.80q", meta.Name)
	}
	if _, err := uuid.Parse(meta.UID); err != nil {
		return refuse(meta.Name, damaged, "its uid is %.80q", meta.UID)
	}
	if !away(obj) {
		return refuse(meta.Name, damaged, "it comes twice")
	}
	return nil
}

// put keeps the first of a name. Shared objects come with every run that has
// them; others come once.
func put[T core.Object](m map[string]T, obj T, shared bool) bool {
	name := obj.Metadata().Name
	if _, there := m[name]; there {
		return shared
	}
	m[name] = obj
	return true
}

// check makes sure that the objects fit together, and prepares them for the
// namespace that they go to: nothing of them can make anything run, delete
// anything, or stand for something else.
func (c *cargo) check(ctx context.Context, p *Porter, m *bundle.Manifest) error {
	if err := c.checkPipelines(ctx, p); err != nil {
		return err
	}
	for _, manifest := range c.manifests {
		found, err := p.manifestOf(ctx, c.namespace, manifest.PipelineSpec, manifest.PlatformSpec)
		if err != nil {
			return fmt.Errorf("the pipeline of its runs: %w", err)
		}
		if found.Name != manifest.Name {
			return refuse("pipeline "+manifest.Name, damaged, "its contents have the hash %s", found.Name)
		}
		c.settle(&manifest.ObjectMeta)
	}
	for _, e := range c.experiments {
		c.settle(&e.ObjectMeta)
		e.Spec.Archived = false
		if e.Spec.DisplayName == "" {
			return refuse("experiment "+e.Name, damaged, "it has no name")
		}
	}
	for _, run := range c.runs {
		if err := c.checkRun(run, m); err != nil {
			return err
		}
	}
	for _, task := range c.tasks {
		if err := c.checkTask(task); err != nil {
			return err
		}
	}
	for _, a := range c.artifacts {
		a.Status.Uploaded = nil // somebody else's upload is not this machine's to remove
		if err := c.checkArtifact(p, a); err != nil {
			return err
		}
	}
	return nil
}

// settle moves an object to its namespace and takes off what only means
// something where it was.
func (c *cargo) settle(meta *core.ObjectMeta) {
	meta.Namespace = c.namespace
	meta.GenerateName, meta.ResourceVersion, meta.Generation = "", "", 0
	meta.DeletionTimestamp, meta.Finalizers = nil, nil
	delete(meta.Annotations, core.AnnotationImport)
}

func (c *cargo) checkPipelines(ctx context.Context, p *Porter) error {
	uids := map[string]string{}
	for _, pipeline := range c.pipelines {
		c.settle(&pipeline.ObjectMeta)
		pipeline.OwnerReferences = nil
		problems := kfp.ValidateNames(kfp.NameOf(&pipeline.ObjectMeta), pipeline.Spec.DisplayName, pipeline.Spec.Description)
		problems = append(problems, kfp.ValidateTags(pipeline.Spec.Tags)...)
		if len(problems) > 0 {
			return fmt.Errorf("pipeline %s: %w", pipeline.Name, problems)
		}
		if uids[pipeline.Name] != "" || kfp.ObjectName(kfp.NameOf(&pipeline.ObjectMeta)) != pipeline.Name {
			return refuse("pipeline "+pipeline.Name, damaged, "it comes twice, or is not called what its object is")
		}
		uids[pipeline.Name] = pipeline.UID
	}
	names := map[string]bool{}
	for _, v := range c.versions {
		c.settle(&v.ObjectMeta)
		owner, known := uids[v.Spec.PipelineName]
		if !known || names[v.Name] || kfp.VersionObjectName(v.Spec.PipelineName, kfp.NameOf(&v.ObjectMeta)) != v.Name {
			return refuse("version "+v.Name, damaged, "it comes twice, has no pipeline, or is not called what its object is")
		}
		names[v.Name] = true
		v.OwnerReferences = ownedByPipeline(v.Spec.PipelineName, owner)
		problems := kfp.ValidateNames(kfp.NameOf(&v.ObjectMeta), v.Spec.DisplayName, v.Spec.Description)
		if problems = append(problems, kfp.ValidateTags(v.Spec.Tags)...); len(problems) > 0 {
			return fmt.Errorf("version %s: %w", v.Name, problems)
		}
		manifest, err := p.manifestOf(ctx, c.namespace, v.Spec.PipelineSpec, v.Spec.PlatformSpec)
		if err != nil {
			return fmt.Errorf("version %s of pipeline %s: %w", kfp.NameOf(&v.ObjectMeta), v.Spec.PipelineName, err)
		}
		v.Spec.PipelineSpec, v.Spec.PlatformSpec = manifest.PipelineSpec, manifest.PlatformSpec
	}
	return nil
}

func ownedByPipeline(name, uid string) []core.OwnerReference {
	return []core.OwnerReference{{APIVersion: kfp.ResourceAPIVersion, Kind: kfp.PipelineKind, Name: name, UID: uid}}
}

// checkRun lets a run through that has ended.
func (c *cargo) checkRun(run *skiff.Run, m *bundle.Manifest) error {
	c.settle(&run.ObjectMeta)
	run.OwnerReferences = nil
	object := "run " + run.Name
	switch manifest := c.manifests[run.Spec.Manifest]; {
	case !run.Status.State.Terminal() || run.Status.State == skiff.StateSkipped:
		return refuse(object, "export it when it has ended", "its state is %.20q; nothing of an import is ever run", run.Status.State)
	case manifest == nil:
		return refuse(object, damaged, "its pipeline, %.80s, is missing", run.Spec.Manifest)
	}
	if run.Spec.Experiment == skiff.DefaultExperiment(m.Namespace) || c.experiments[run.Spec.Experiment] == nil {
		run.Spec.Experiment = skiff.DefaultExperiment(c.namespace)
	}
	if run.Status.Imported == nil {
		run.Status.Imported = &skiff.RunImport{Store: m.Store, Images: map[string]string{}}
	}
	for _, image := range m.Images {
		if image.Entry != "" && image.Digest != "" {
			if run.Status.Imported.Images == nil {
				run.Status.Imported.Images = map[string]string{}
			}
			run.Status.Imported.Images[image.Digest] = image.ID
		}
	}
	return c.referred(object, run.Status.OutputArtifacts)
}

// referred makes sure that artifacts that are named are there.
func (c *cargo) referred(object string, lists ...map[string][]string) error {
	for _, list := range lists {
		for _, names := range list {
			for _, name := range names {
				if !core.IsDNSSubdomain(name) {
					return refuse(object, damaged, "it names the artifact %.80q", name)
				}
			}
		}
	}
	return nil
}

func (c *cargo) checkTask(task *skiff.Task) error {
	c.settle(&task.ObjectMeta)
	object := "task " + task.Name
	run := c.runs[task.Spec.Run]
	switch {
	case run == nil || !strings.HasPrefix(task.Name, run.Name+"-"):
		return refuse(object, damaged, "its run, %.80q, is missing or another one", task.Spec.Run)
	case !task.Status.State.Terminal():
		return refuse(object, "export it when its run has ended", "its state is %.20q", task.Status.State)
	}
	task.OwnerReferences = owned(task.OwnerReferences, run)
	// A pod of that name here would be another's. And what a stranger says came
	// of a step is no result for steps that run here.
	task.Status.Pod, task.Status.CacheKey = "", ""
	return c.referred(object, task.Status.InputArtifacts, task.Status.OutputArtifacts)
}

// owned keeps the references to the run itself.
func owned(refs []core.OwnerReference, run *skiff.Run) []core.OwnerReference {
	return slices.DeleteFunc(refs, func(ref core.OwnerReference) bool {
		return run == nil || ref.Kind != skiff.RunKind || ref.Name != run.Name || ref.UID != run.UID
	})
}

func (c *cargo) checkArtifact(p *Porter, a *skiff.Artifact) error {
	c.settle(&a.ObjectMeta)
	run := c.runs[a.Spec.Run]
	a.OwnerReferences = owned(a.OwnerReferences, run)
	if _, err := p.cfg.Artifacts.Locate(c.namespace, a.Spec.URI); err != nil && !a.Spec.Imported {
		return refuse("artifact "+a.Name, damaged, "%w", err)
	}
	if d := a.Status.Digest; d != "" && !strings.HasPrefix(d, artifact.DigestPrefix) {
		return refuse("artifact "+a.Name, damaged, "its digest is %.80q", d)
	}
	return nil
}

// rename gives the bundle's one pipeline another name, and ids that follow from
// the old ones and the name, so that a repetition comes to the same.
func (c *cargo) rename(name string) error {
	if len(c.pipelines) != 1 {
		return refuse("--as", "leave it out", "the bundle holds %d pipelines, and a name is for one", len(c.pipelines))
	}
	if problems := kfp.ValidateNames(name, "", ""); len(problems) > 0 {
		return problems
	}
	p := c.pipelines[0]
	if name == kfp.NameOf(&p.ObjectMeta) {
		return nil
	}
	ids := map[string]string{}
	anew := func(meta *core.ObjectMeta) {
		base, err := uuid.Parse(meta.UID)
		if err != nil {
			return // checked when it was read
		}
		ids[meta.UID] = uuid.NewSHA1(base, []byte(c.namespace+separator+name)).String()
		meta.UID = ids[meta.UID]
	}
	anew(&p.ObjectMeta)
	p.Name, p.Spec.DisplayName = kfp.ObjectName(name), ""
	delete(p.Annotations, kfp.AnnotationName)
	if p.Name != name {
		annotate(&p.ObjectMeta, kfp.AnnotationName, name)
	}
	for _, v := range c.versions {
		anew(&v.ObjectMeta)
		v.Name, v.Spec.PipelineName = kfp.VersionObjectName(p.Name, kfp.NameOf(&v.ObjectMeta)), p.Name
		v.OwnerReferences = ownedByPipeline(p.Name, p.UID)
	}
	for _, run := range c.runs {
		if from := run.Spec.PipelineVersion; from != nil && ids[from.PipelineID] != "" {
			run.Spec.PipelineVersion = &skiff.PipelineVersionReference{PipelineID: ids[from.PipelineID], VersionID: ids[from.VersionID]}
		}
	}
	return nil
}

func annotate(meta *core.ObjectMeta, key, value string) {
	if meta.Annotations == nil {
		meta.Annotations = map[string]string{}
	}
	meta.Annotations[key] = value
}
