package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// Submission is a pipeline as somebody hands it in.
type Submission struct {
	Namespace   string
	DisplayName string
	// Filename is for messages and for telling the form of Package (YAML, JSON,
	// zip, tar.gz); the contents decide where they disagree.
	Filename string
	Package  []byte
	// Parameters are values for the pipeline's inputs; Arguments are such
	// values as text, read by the type of the input ("k=v" on a command line).
	Parameters map[string]json.RawMessage
	Arguments  map[string]string
	// PipelineRoot overrides where artifacts go.
	PipelineRoot string
	DisableCache bool
	// CacheMaxAge and CacheTasks: see skiff.RunSpec. Tasks may be named by their
	// keys, too.
	CacheMaxAge string
	CacheTasks  map[string]string
	Verbatim    bool
	// CheckImages asks for every image before anything starts.
	CheckImages bool
	Priority    int32
	Labels      map[string]string
	// Description, and what the run belongs to: see skiff.RunSpec. An empty
	// Experiment is the namespace's default one.
	Description string
	Experiment  string
	// PauseOnFailureSeconds: see skiff.RunSpec.
	PauseOnFailureSeconds int64
	// Resume names a run to go on from. What the submission leaves out then is
	// as it was there: the package, parameters, the pipeline root and the
	// experiment.
	Resume *skiff.Resume
	// Name is the run's; empty makes a new one. One that is there already is
	// store.ErrExists.
	Name            string
	PipelineVersion *skiff.PipelineVersionReference
	RecurringRun    string
	ScheduledAt     time.Time
	ServiceAccount  string
}

// maxPause is how long a failed step may be kept at most, in seconds: over a long
// weekend.
const maxPause = 4 * 24 * 60 * 60

// Check does all the door's checks and writes nothing. What is refused is a
// problem.List.
func (c *Controller) Check(ctx context.Context, sub Submission) error {
	_, _, err := c.admit(ctx, sub)
	return err
}

// Submit checks a pipeline and makes its Run. When it returns without an error
// the run is durable and will be executed, whatever happens to the daemon. A
// refusal is a problem.List, and nothing was written.
func (c *Controller) Submit(ctx context.Context, sub Submission) (*skiff.Run, error) {
	run, ops, err := c.Prepare(ctx, sub)
	if err != nil {
		return nil, err
	}
	return run, c.keep(ctx, run, ops)
}

// keep makes an admitted run durable.
func (c *Controller) keep(ctx context.Context, run *skiff.Run, ops []store.Op) error {
	if _, err := c.store.Commit(ctx, ops...); err != nil {
		return fmt.Errorf("keep run %s: %w", run.Name, err)
	}
	c.log.Info("run accepted", "run", run.Name, "pipeline", run.Spec.PipelineName)
	return nil
}

// Prepare is Submit up to the transaction: it returns the run, and what must be
// committed for it to be, for callers who record something in the same
// transaction. It writes nothing.
func (c *Controller) Prepare(ctx context.Context, sub Submission) (*skiff.Run, []store.Op, error) {
	run, manifest, err := c.admit(ctx, sub)
	if err != nil {
		return nil, nil, err
	}
	ops, err := c.opsOf(ctx, run, manifest)
	return run, ops, err
}

// opsOf are what must be committed for an admitted run to be.
func (c *Controller) opsOf(ctx context.Context, run *skiff.Run, manifest *skiff.PipelineManifest) ([]store.Op, error) {
	ops := []store.Op{{Verb: store.Create, Kind: Runs, Object: run}}
	experiment, err := c.experiment(ctx, run)
	if err != nil {
		return nil, err
	}
	if experiment != nil {
		ops = append(ops, store.Op{Verb: store.Put, Kind: Experiments, Object: experiment})
	}
	_, err = c.store.Get(ctx, store.Key{Kind: Manifests, Namespace: manifest.Namespace, Name: manifest.Name})
	if errors.Is(err, store.ErrNotFound) {
		ops = append([]store.Op{{Verb: store.Put, Kind: Manifests, Object: manifest}}, ops...)
	} else if err != nil {
		return nil, fmt.Errorf("look for the pipeline's manifest: %w", err)
	}
	return ops, nil
}

// experiment makes sure that a run's experiment takes runs. It returns the
// default one where that is still to be made.
func (c *Controller) experiment(ctx context.Context, run *skiff.Run) (*skiff.Experiment, error) {
	name := run.Spec.Experiment
	found, err := store.GetAs[*skiff.Experiment](ctx, c.store, store.Key{Kind: Experiments, Namespace: run.Namespace, Name: name})
	var problems problem.List
	switch {
	case errors.Is(err, store.ErrNotFound) && name == skiff.DefaultExperiment(run.Namespace):
		return skiff.NewDefaultExperiment(run.Namespace), nil
	case errors.Is(err, store.ErrNotFound):
		problems.Add("experiment_id", "there is no experiment %s in namespace %s", name, run.Namespace).Hint = "make it first, or leave it out"
	case err != nil:
		return nil, fmt.Errorf("look for experiment %s: %w", name, err)
	case found.Spec.Archived:
		problems.Add("experiment_id", "experiment %s (%s) is archived", found.Spec.DisplayName, name).Hint = "unarchive it first, or choose another"
	}
	return nil, problems.OrNil()
}

// Inspect checks a package as Submit does, parameters aside, and returns the
// manifest that its runs would have. It writes nothing; a refusal is a
// problem.List.
func (c *Controller) Inspect(_ context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error) {
	pkg, err := kfp.Load(filename, data, c.limits)
	if err != nil {
		return nil, err
	}
	problems := kfp.Validate(pkg, kfp.Checks{Condition: expr.Check, Selector: expr.CheckSelector, Limits: c.limits})
	if problems = append(problems, c.unsupported(pkg)...); len(problems) > 0 {
		return nil, named(problems, filename)
	}
	return manifestOf(pkg, namespace)
}

// manifestOf is a package as it is stored.
func manifestOf(pkg *kfp.Package, namespace string) (*skiff.PipelineManifest, error) {
	spec, platform, err := pkg.Canonical()
	if err != nil {
		return nil, fmt.Errorf("write the pipeline's canonical form: %w", err)
	}
	hash := sha256.New()
	hash.Write(spec)
	hash.Write([]byte{0})
	hash.Write(platform)
	return &skiff.PipelineManifest{
		TypeMeta:     core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.PipelineManifestKind},
		ObjectMeta:   core.ObjectMeta{Name: hex.EncodeToString(hash.Sum(nil)), Namespace: namespace},
		PipelineSpec: spec, PlatformSpec: platform,
	}, nil
}

// admit turns a submission into objects, or says everything that is wrong.
func (c *Controller) admit(ctx context.Context, sub Submission) (*skiff.Run, *skiff.PipelineManifest, error) {
	var original *skiff.Run
	var err error
	if sub.Resume != nil {
		if original, err = c.resumable(ctx, sub.Namespace, sub.Resume.Run); err != nil {
			return nil, nil, err
		}
	}
	pkg, err := c.packageOf(ctx, &sub, original)
	if err != nil {
		return nil, nil, err
	}
	if problems := kfp.Validate(pkg, kfp.Checks{Condition: expr.Check, Selector: expr.CheckSelector, Limits: c.limits}); len(problems) > 0 {
		return nil, nil, named(problems, sub.Filename)
	}
	var problems problem.List
	if original != nil {
		if problems, err = c.inherit(ctx, &sub, pkg, original); err != nil {
			return nil, nil, err
		}
	}
	parameters, more := c.parameters(pkg, sub)
	problems = append(problems, more...)
	problems = append(problems, c.unsupported(pkg)...)
	problems = append(problems, c.cacheSettings(pkg, &sub)...)
	if sub.PauseOnFailureSeconds < 0 || sub.PauseOnFailureSeconds > maxPause {
		problems.Add("pauseOnFailureSeconds", "want 0 to %d, got %d", maxPause, sub.PauseOnFailureSeconds).Hint = "a paused step keeps its CPUs, memory and devices from others"
	}
	root := sub.PipelineRoot
	if root == "" {
		root = pkg.Spec.DefaultPipelineRoot
	}
	if root == "" && c.stores != nil {
		// The namespace's own is written down: what it is later changes no run.
		if root, err = c.stores.PipelineRoot(ctx, sub.Namespace); err != nil {
			problems.Add("pipeline_root", "%w", err)
		}
		sub.PipelineRoot = root
	}
	if root != "" {
		if at, err := c.artifacts.Locate(sub.Namespace, strings.TrimRight(root, "/")+"/x"); err != nil || at.Web() {
			if err == nil {
				err = fmt.Errorf("%s: nothing can be written to an address", root)
			}
			problems.Add("defaultPipelineRoot", "%w", err).Hint = "use a minio://, s3:// or gs:// address, or leave it out"
		} else if c.stores != nil {
			if _, _, err := c.stores.Endpoint(ctx, sub.Namespace, strings.TrimRight(root, "/")+"/x"); err != nil {
				problems.Add("defaultPipelineRoot", "%w", err)
			}
		}
	}
	if len(problems) == 0 {
		problems = append(problems, c.fits(pkg, parameters)...)
	}
	if len(problems) == 0 && sub.CheckImages {
		problems = append(problems, c.checkImages(ctx, pkg)...)
	}
	if len(problems) > 0 {
		return nil, nil, named(problems, sub.Filename)
	}
	return c.objects(pkg, sub, parameters)
}

// named puts the file's name on problems that do not carry one.
func named(problems problem.List, file string) problem.List {
	for _, p := range problems {
		if p.Object == "" {
			p.Object = file
		}
	}
	return problems
}

// parameters are the run's parameters as given, checked against the pipeline's
// inputs. Defaults are applied when the run starts, so that the run shows what
// was really given.
func (c *Controller) parameters(pkg *kfp.Package, sub Submission) (map[string]json.RawMessage, problem.List) {
	var problems problem.List
	given := make(map[string]json.RawMessage, len(sub.Parameters)+len(sub.Arguments))
	maps.Copy(given, pkg.Parameters)
	maps.Copy(given, sub.Parameters)
	for _, name := range sortedKeys(sub.Arguments) {
		def := pkg.Spec.Root.InputDefinitions.Parameters[name]
		if def == nil {
			raw, err := json.Marshal(sub.Arguments[name])
			if err == nil {
				given[name] = raw // ResolveInputs says that it is not declared
			}
			continue
		}
		value, err := kfp.ParseArgument(def.Type(), sub.Arguments[name])
		if err != nil {
			problems.Add("parameters."+name, "%w", err)
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			problems.Add("parameters."+name, "%w", err)
			continue
		}
		given[name] = raw
	}
	_, more := kfp.ResolveInputs(pkg.Spec.Root.InputDefinitions, given)
	return given, append(problems, more...)
}

// fits holds what each step asks for, as far as it is written plainly, against
// what the node has.
func (c *Controller) fits(pkg *kfp.Package, _ map[string]json.RawMessage) problem.List {
	var problems problem.List
	for _, label := range sortedKeys(pkg.Spec.DeploymentSpec.Executors) {
		container := pkg.Spec.DeploymentSpec.Executors[label].Container
		if container == nil || container.Resources == nil || container.Resources.Dynamic() {
			continue
		}
		field := "deploymentSpec.executors." + label + ".container.resources"
		needs, err := container.Resources.Requirements(func(text string) (string, error) { return text, nil })
		if err != nil {
			problems.Add(field, "%w", err)
			continue
		}
		pod := &core.Pod{Spec: core.PodSpec{Containers: []core.Container{{Name: mainContainer, Resources: needs}}}}
		if err := c.fit(pod); err != nil {
			problems.Add(field, "%w", err).Hint = "ask for less, or run it on a machine that has as much"
		}
	}
	return problems
}

// checkImages asks for every image that is written plainly.
func (c *Controller) checkImages(ctx context.Context, pkg *kfp.Package) problem.List {
	var problems problem.List
	asked := map[string]bool{createClaimImage: true, deleteClaimImage: true} // stand for what the engine does itself
	ask := func(field, image string) {
		if strings.Contains(image, "{{") || asked[image] {
			return
		}
		asked[image] = true
		_, err := c.images.PrepareImage(ctx, runtime.ImageRequest{Ref: image, Policy: runtime.PullIfNotPresent}, func(runtime.ImageProgress) {})
		if err != nil {
			problems.Add(field, "%w", err)
		}
	}
	for _, label := range sortedKeys(pkg.Spec.DeploymentSpec.Executors) {
		if container := pkg.Spec.DeploymentSpec.Executors[label].Container; container != nil {
			ask("deploymentSpec.executors."+label+".container.image", container.Image)
		}
		if platform := pkg.Platform.Executor(label); platform != nil {
			for i, container := range platform.InitContainers {
				ask(fmt.Sprintf("platforms.kubernetes.deploymentSpec.executors.%s.initContainers[%d].image", label, i), container.Image)
			}
		}
	}
	return problems
}

// objects makes what is stored of an accepted submission.
func (c *Controller) objects(pkg *kfp.Package, sub Submission, parameters map[string]json.RawMessage) (*skiff.Run, *skiff.PipelineManifest, error) {
	manifest, err := manifestOf(pkg, sub.Namespace)
	if err != nil {
		return nil, nil, err
	}
	name := sub.Name
	if name == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, nil, fmt.Errorf("make a run id: %w", err)
		}
		name = id.String()
	}
	display := sub.DisplayName
	if display == "" {
		display = pkg.Spec.PipelineInfo.Name + " " + c.now().UTC().Format("2006-01-02 15-04-05")
	}
	run := &skiff.Run{
		TypeMeta:   core.TypeMeta{APIVersion: skiff.APIVersion, Kind: skiff.RunKind},
		ObjectMeta: core.ObjectMeta{Name: name, Namespace: sub.Namespace, Labels: sub.Labels},
		Spec: skiff.RunSpec{
			DisplayName: display, PipelineName: pkg.Spec.PipelineInfo.Name, Manifest: manifest.Name, Parameters: parameters,
			PipelineRoot: sub.PipelineRoot, DisableCache: sub.DisableCache, Verbatim: sub.Verbatim, Priority: sub.Priority,
		},
		Status: skiff.RunStatus{Fake: c.fake},
	}
	run.Spec.Description, run.Spec.PipelineVersion, run.Spec.ServiceAccount = sub.Description, sub.PipelineVersion, sub.ServiceAccount
	run.Spec.RecurringRun, run.Spec.ScheduledAt = sub.RecurringRun, sub.ScheduledAt
	run.Spec.PauseOnFailureSeconds = sub.PauseOnFailureSeconds
	run.Spec.ResumedFrom, run.Spec.CacheMaxAge, run.Spec.CacheTasks = sub.Resume, sub.CacheMaxAge, sub.CacheTasks
	if run.Spec.Experiment = sub.Experiment; run.Spec.Experiment == "" {
		run.Spec.Experiment = skiff.DefaultExperiment(sub.Namespace)
	}
	run.Status.Enter(skiff.StatePending, c.now(), "")
	return run, manifest, nil
}
