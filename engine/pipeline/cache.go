package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// fingerprint is what makes two steps the same. It follows the published cache
// key of KFP (cache_key.proto: inputs, outputs, image and command of the
// component, within one pipeline and namespace) with two differences: an input
// artifact counts by its content, not by its name, and the image by its digest,
// not by its tag. Commands count unresolved, as there, since resolved ones hold
// the run's own paths.
type fingerprint struct {
	Pipeline        string                     `json:"pipeline"`
	Namespace       string                     `json:"namespace"`
	Custom          string                     `json:"custom,omitempty"`
	Parameters      map[string]json.RawMessage `json:"parameters,omitempty"`
	Artifacts       map[string][]string        `json:"artifacts,omitempty"`
	OutputParams    map[string]string          `json:"outputParameters,omitempty"`
	OutputArtifacts map[string]string          `json:"outputArtifacts,omitempty"`
	Image           string                     `json:"image,omitempty"`
	Command         []string                   `json:"command,omitempty"`
	Args            []string                   `json:"args,omitempty"`
	Env             []kfp.EnvVar               `json:"env,omitempty"`
	// Claims are the names of the volume claims that the step mounts, sorted.
	Claims []string `json:"claims,omitempty"`
}

// lookUp starts a step, or settles it with the result of an earlier one: that of
// the run which this one goes on from, or one that the cache finds.
func (x *execution) lookUp(ctx context.Context, n *node) {
	waiting := x.unhashedPast(ctx, n)
	if len(waiting) > 0 || x.uncacheable(n) == "" || x.comparable(n) {
		for _, list := range n.inputs.artifacts {
			waiting = append(waiting, unhashed(map[string][]*skiff.Artifact{"": list.items})...)
		}
	}
	if len(waiting) == 0 {
		x.decide(ctx, n, nil, nil)
		return
	}
	// Only comparisons wait for content hashes; they are being computed already.
	namespace := x.run.Namespace
	x.outside(ctx, func(ctx context.Context) func() {
		digests, err := x.c.digests(ctx, namespace, waiting)
		return func() {
			if !n.final() {
				x.decide(ctx, n, digests, err)
			}
		}
	})
}

// comparable says whether a step will be held against one of the origin.
func (x *execution) comparable(n *node) bool { return x.origin != nil && x.mustRun(n) == "" }

// unhashed are the artifacts whose content hash is not recorded yet.
func unhashed(artifacts map[string][]*skiff.Artifact) []*skiff.Artifact {
	var list []*skiff.Artifact
	for _, name := range sortedKeys(artifacts) {
		for _, a := range artifacts[name] {
			if a.Status.Digest == "" && !a.Status.Missing {
				list = append(list, a)
			}
		}
	}
	return list
}

// decide starts a step, or settles it, once the content hashes of its inputs are
// known, or cannot be had.
func (x *execution) decide(ctx context.Context, n *node, digests map[string]string, unknown error) {
	onItsOwn := func() { x.decideCached(ctx, n, digests, unknown) }
	if unknown != nil {
		onItsOwn()
		return
	}
	x.takeOver(ctx, n, digests, onItsOwn)
}

// decideCached is decide for a step that takes nothing over.
func (x *execution) decideCached(ctx context.Context, n *node, digests map[string]string, unknown error) {
	if reason := x.uncacheable(n); reason != "" {
		n.task.Status.CacheReason = reason
		x.newAttempt(ctx, n)
		return
	}
	if unknown != nil {
		n.task.Status.CacheReason = "not looked up: " + unknown.Error()
		x.newAttempt(ctx, n)
		return
	}
	x.found(ctx, n, x.find(ctx, n, digests))
}

// found goes on after the look-up, with the first result whose artifacts the
// object stores have, too.
func (x *execution) found(ctx context.Context, n *node, list []earlier) {
	if len(list) == 0 {
		x.newAttempt(ctx, n)
		return
	}
	x.ifKept(ctx, n, list[0].results, func() {
		n.task.Status.CacheReason = "hit: the same step of run " + list[0].task.Spec.Run
		x.settleAs(n, list[0].task, list[0].results)
	}, func(err error) {
		n.task.Status.CacheReason = unusable(list[0].task, err)
		x.found(ctx, n, list[1:])
	})
}

func unusable(task *skiff.Task, err error) string {
	return fmt.Sprintf("miss: the result of run %s cannot be used again: %v", task.Spec.Run, err)
}

// uncacheable says why a step must run, "" where it need not.
func (x *execution) uncacheable(n *node) string {
	switch {
	case n.forced:
		return "it was asked to be run again"
	case x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Container == nil:
		return "it is not a container"
	case x.plat.Workspace() != nil:
		return "the run has a workspace, which a cached step would not have written to"
	}
	return x.cacheRule(n).off
}

// earlier is the result of an earlier task.
type earlier struct {
	task    *skiff.Task
	results artifactMap
}

// find looks for results of the same step whose artifacts are there as far as
// this machine can tell, newest first.
func (x *execution) find(ctx context.Context, n *node, digests map[string]string) []earlier {
	key, err := x.cacheKey(ctx, n, digests)
	if err != nil {
		n.task.Status.CacheReason = "not looked up: " + err.Error()
		return nil
	}
	n.task.Status.CacheKey = key
	page, err := x.c.store.List(ctx, store.ListOptions{Kind: Tasks, Namespace: x.run.Namespace, Index: indexCache, Prefix: key + separator, Limit: 10})
	if err != nil {
		n.task.Status.CacheReason = "not looked up: " + err.Error()
		return nil
	}
	var usable []earlier
	rule, now := x.cacheRule(n), x.c.now()
	if len(page.Items) == 0 {
		n.task.Status.CacheReason = "miss: " + x.nearMiss(ctx, n, digests)
	}
	for _, obj := range page.Items { // newest first
		task := obj.(*skiff.Task)
		if age := now.Sub(task.Status.FinishedAt); rule.limited && age > rule.maxAge {
			n.task.Status.CacheReason = fmt.Sprintf("miss: the result of run %s expired %s ago", task.Spec.Run, roughly(age-rule.maxAge))
			break
		}
		results, err := x.cachedArtifacts(ctx, task)
		if err == nil {
			usable = append(usable, earlier{task, results})
			continue
		}
		n.task.Status.CacheReason = unusable(task, err)
	}
	return usable
}

// nearMiss says in what a step differs from the same step of the run before, as
// far as that is cheaply had.
func (x *execution) nearMiss(ctx context.Context, n *node, digests map[string]string) string {
	const plain = "no earlier result with these inputs, image and command"
	now, err := x.definition(ctx, n, digests)
	if err != nil {
		return plain
	}
	for _, o := range x.runsBefore(ctx) {
		task, err := store.GetAs[*skiff.Task](ctx, x.c.store, store.Key{Kind: Tasks, Namespace: x.run.Namespace, Name: taskName(o.name, n.path)})
		if err != nil || task.Status.State != skiff.StateSucceeded {
			continue
		}
		was, err := x.defined(ctx, o, task, digests)
		if err != nil {
			continue
		}
		was.Named = now.Named // what these came to there is not read
		if difference := now.differs(was, o.name); difference != "" {
			return difference
		}
		if task.Status.CacheKey == "" {
			return "in run " + o.name + " the step was not looked up, so its result is not kept by its key"
		}
	}
	return plain
}

// Which runs a miss is explained by: enough to find the one before among those of
// other pipelines, and few enough to cost nothing.
const (
	runsLookedAt = 16
	runsCompared = 3
)

// runsBefore are the newest runs of the same pipeline before this one. They are
// read once, for explanations only; a run that cannot be read is left out.
func (x *execution) runsBefore(ctx context.Context) []*origin {
	if x.before != nil {
		return x.before
	}
	x.before = []*origin{}
	page, err := x.c.store.List(ctx, store.ListOptions{Kind: Runs, Namespace: x.run.Namespace, Index: IndexCreated, Limit: runsLookedAt})
	if err != nil {
		return nil
	}
	for _, obj := range page.Items {
		run := obj.(*skiff.Run)
		if run.Name == x.run.Name || run.Spec.PipelineName != x.run.Spec.PipelineName || len(x.before) >= runsCompared {
			continue
		}
		if pkg, err := x.c.manifest(ctx, run.Namespace, run.Spec.Manifest); err == nil {
			x.before = append(x.before, &origin{name: run.Name, ir: pkg.Spec, plat: pkg.Platform})
		}
	}
	return x.before
}

// settleAs settles a step with the result of an earlier one.
func (x *execution) settleAs(n *node, past *skiff.Task, results artifactMap) {
	status := &n.task.Status
	status.Cached, status.CachedFrom = true, past.Name
	status.Image, status.ImageDigest = past.Status.Image, past.Status.ImageDigest
	status.Inputs, status.InputArtifacts = n.inputs.params.encoded(), n.inputs.artifacts.names()
	status.StartedAt = x.c.now()
	n.outputs = make(values, len(past.Status.Outputs))
	for name, raw := range past.Status.Outputs {
		n.outputs[name] = decoded(raw)
	}
	n.results = results
	for _, list := range results {
		x.c.usedLater(x.run.Name, list.items)
	}
	x.settle(n, skiff.StateSucceeded, "", "")
}

// cachedArtifacts reads an earlier task's artifacts; one that is gone, or whose
// contents are, makes the result useless.
func (x *execution) cachedArtifacts(ctx context.Context, task *skiff.Task) (artifactMap, error) {
	results := artifactMap{}
	for output, names := range task.Status.OutputArtifacts {
		list := artifactList{list: len(names) != 1}
		for _, name := range names {
			a, err := x.artifact(ctx, name)
			if err != nil {
				return nil, err
			}
			if why := a.Gone(); why != "" {
				return nil, fmt.Errorf("artifact %s: %s", a.Spec.DisplayName, why)
			}
			if !a.Spec.Imported && !a.Status.Missing && !x.elsewhere(ctx, a) && !x.c.artifacts.Exists(x.run.Namespace, a.Spec.URI) {
				return nil, fmt.Errorf("artifact %s is no longer at %s", a.Spec.DisplayName, a.Spec.URI)
			}
			list.items = append(list.items, a)
		}
		results[output] = list
	}
	return results, nil
}

// artifact is an artifact object by name.
func (x *execution) artifact(ctx context.Context, name string) (*skiff.Artifact, error) {
	if a := x.artifacts[name]; a != nil {
		return a, nil
	}
	x.hold(name, "")
	obj, err := x.c.store.Get(ctx, store.Key{Kind: Artifacts, Namespace: x.run.Namespace, Name: name})
	if err != nil {
		return nil, fmt.Errorf("artifact %s: %w", name, err)
	}
	a := obj.(*skiff.Artifact)
	x.hold("", a.Spec.URI)
	x.artifacts[name] = a
	return a, nil
}

// cacheKey is the fingerprint's hash.
func (x *execution) cacheKey(ctx context.Context, n *node, digests map[string]string) (string, error) {
	container := x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Container
	f := fingerprint{Pipeline: x.ir.PipelineInfo.Name, Namespace: x.run.Namespace}
	if custom := n.spec.CachingOptions.CacheKey; custom != "" {
		f.Custom = n.spec.ComponentRef.Name + separator + custom
		return f.hash(), nil
	}
	image, err := x.c.imageIdentity(ctx, container.Image)
	if err != nil {
		return "", err
	}
	f.Image, f.Command, f.Args, f.Env = image, container.Command, container.Args, container.Env
	if platform := x.plat.Executor(n.component.ExecutorLabel); platform != nil {
		for i, m := range platform.PVCMount {
			claim, err := x.claimName(n, m)
			if err != nil {
				return "", fmt.Errorf("pvcMount[%d]: %w", i, err)
			}
			f.Claims = append(f.Claims, claim)
		}
		slices.Sort(f.Claims)
		f.Claims = slices.Compact(f.Claims)
	}
	f.Parameters = n.inputs.params.encoded()
	f.Artifacts = map[string][]string{}
	for name, list := range n.inputs.artifacts {
		ids := []string{}
		for _, a := range list.items {
			ids = append(ids, contentOf(a, digests))
		}
		f.Artifacts[name] = ids
	}
	f.OutputParams, f.OutputArtifacts = map[string]string{}, map[string]string{}
	for name, def := range n.component.OutputDefinitions.Parameters {
		f.OutputParams[name] = string(def.Type())
	}
	for name, def := range n.component.OutputDefinitions.Artifacts {
		metadata, err := json.Marshal(def.Metadata)
		if err != nil {
			return "", fmt.Errorf("output artifact %q: %w", name, err)
		}
		f.OutputArtifacts[name] = def.ArtifactType.SchemaTitle + separator + string(metadata)
	}
	return f.hash(), nil
}

// contentOf identifies an artifact for the cache: by its contents and what its
// producer said about it.
func contentOf(a *skiff.Artifact, digests map[string]string) string {
	digest := a.Status.Digest
	if digest == "" {
		digest = digests[a.Name]
	}
	if digest == "" {
		digest = a.Spec.URI // nothing of it is here: its address is all there is
	}
	var metadata []byte // none, whether the map is empty or absent
	if len(a.Spec.Metadata) > 0 {
		var err error
		if metadata, err = json.Marshal(a.Spec.Metadata); err != nil {
			return digest
		}
	}
	return digest + separator + a.Spec.SchemaTitle + separator + string(metadata)
}

func (f *fingerprint) hash() string {
	data, err := json.Marshal(f)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// imageIdentity is the digest of an image as it is on this machine. One that is
// not here cannot have been run by an earlier step that still counts.
func (c *Controller) imageIdentity(ctx context.Context, ref string) (string, error) {
	image, err := c.images.PrepareImage(ctx, runtime.ImageRequest{Ref: ref, Policy: runtime.PullNever}, func(runtime.ImageProgress) {})
	switch {
	case errors.Is(err, runtime.ErrImageUnavailable):
		return "", fmt.Errorf("image %s is not on this machine yet", ref)
	case err != nil:
		return "", err
	}
	return image.Digest, nil
}

// digests waits for the content hashes of artifacts.
func (c *Controller) digests(ctx context.Context, namespace string, list []*skiff.Artifact) (map[string]string, error) {
	list = slices.Clone(list)
	found := make(map[string]string, len(list))
	for _, a := range list {
		if _, err := c.artifacts.Locate(namespace, a.Spec.URI); err != nil {
			continue // nobody keeps it: its URI identifies it
		}
		version, err := c.versionElsewhere(ctx, namespace, a)
		if err != nil {
			return nil, fmt.Errorf("identify artifact %s: %w", a.Spec.DisplayName, err)
		}
		if version != "" {
			found[a.Name] = version
			continue
		}
		if !c.artifacts.Exists(namespace, a.Spec.URI) {
			continue
		}
		digest, err := c.artifacts.Digest(ctx, namespace, a.Spec.URI)
		if err != nil {
			return nil, fmt.Errorf("hash artifact %s: %w", a.Spec.DisplayName, err)
		}
		found[a.Name] = digest.Digest
	}
	return found, nil
}
