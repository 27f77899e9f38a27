package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

const (
	// mainContainer is the name of a step's container, as on the cluster.
	mainContainer = "main"
	// outputFolder is where components find the files for their output
	// parameters; the cluster's driver names the same.
	outputFolder = "/tmp/kfp/outputs"
	// executorOutput is the file in which a component reports outputs by itself. Its folder is the task's root, from which components
	// derive URIs (dsl.get_uri), so it lies among the artifacts.
	executorOutput = artifact.ExecutorOutput
	// parameterOutput prefixes the pod outputs that are parameter files.
	parameterOutput = "parameter/"
	// retryIndex tells a component which attempt it is, from 0 (KFP's name).
	retryIndex = "KFP_RETRY_INDEX"
	// stopGrace is how long a step has to end when it is asked to, in seconds:
	// long enough to flush a checkpoint's last buffer, short enough that a
	// cancel feels like one.
	stopGrace = 10
)

// startContainer makes the first attempt of a step, or takes its newest one up
// again, unless the result of an earlier task can stand in for it.
func (x *execution) startContainer(ctx context.Context, n *node) {
	if n.task.Status.Pod != "" {
		x.attach(ctx, n)
		return
	}
	x.lookUp(ctx, n)
}

// attach takes up the pod of a task that was begun before.
func (x *execution) attach(ctx context.Context, n *node) {
	obj, err := x.c.store.Get(ctx, store.Key{Kind: podsKind, Namespace: x.run.Namespace, Name: n.task.Status.Pod})
	switch {
	case errors.Is(err, store.ErrNotFound):
		x.podGone(ctx, n)
	case err != nil:
		x.fail(n, reasonInternalFault, err)
	default:
		pod := obj.(*core.Pod)
		if pod.Spec.Skiff != nil {
			n.restarts = pod.Spec.Skiff.InfrastructureRetries
		}
		n.pod = pod
		if !n.task.Status.RetryAt.IsZero() && pod.Status.Phase.Terminal() {
			x.after(n, n.task.Status.RetryAt.Sub(x.c.now()), func() { x.newAttempt(ctx, n) })
			return
		}
		x.byPod[pod.Name] = n
		x.keepHere(n)
		x.podChanged(ctx, n, pod)
	}
}

// newAttempt makes the next pod of a step. Whatever is wrong with the step as
// it is written shows here, and fails it.
func (x *execution) newAttempt(ctx context.Context, n *node) {
	if x.cancelling() && !n.exempt {
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
		return
	}
	x.withInputs(ctx, n, func() {
		n.task.Status.Attempts++
		n.restarts = 0
		x.launch(n)
	})
}

// launch makes the pod of the present attempt.
func (x *execution) launch(n *node) {
	pod, err := x.podFor(n)
	if err != nil {
		x.fail(n, reasonInputs, err)
		return
	}
	if n.warm == nil || !x.takeWarm(n, pod) {
		x.newPods = append(x.newPods, pod)
	}
	n.task.Status.Inputs = n.inputs.params.encoded()
	n.task.Status.InputArtifacts = n.inputs.artifacts.names()
	n.task.Status.Pod = pod.Name
	n.task.Status.Image = pod.Spec.Containers[0].Image
	n.task.Status.RetryAt = time.Time{}
	if n.pod != nil {
		delete(x.byPod, n.pod.Name)
	}
	n.pod = pod
	x.byPod[pod.Name] = n
	x.touch(n)
}

// step is what the parts of podFor share.
type step struct {
	n         *node
	container *kfp.ContainerSpec
	platform  *kfp.KubernetesExecutorConfig
	input     *kfp.ExecutorInput
	context   *expr.Context
	// root locates the attempt's own output folder.
	root    artifact.Location
	rootURI string
}

// podFor resolves everything about an attempt into a pod.
func (x *execution) podFor(n *node) (*core.Pod, error) {
	s, err := x.newStep(n)
	if err != nil {
		return nil, err
	}
	main, err := s.mainContainer(x)
	if err != nil {
		return nil, err
	}
	return x.assemble(s, main, s.extension(x, main.Command))
}

// assemble makes the pod of a step's attempt around its container.
func (x *execution) assemble(s *step, main core.Container, ext *core.PodExtension) (*core.Pod, error) {
	n, grace := s.n, int64(stopGrace)
	pod := &core.Pod{
		TypeMeta: core.TypeMeta{APIVersion: "v1", Kind: core.PodKind},
		ObjectMeta: core.ObjectMeta{
			Name:      podName(x.run.Name, n.path, n.task.Status.Attempts, n.restarts),
			Namespace: x.run.Namespace,
			Labels:    map[string]string{core.LabelRun: x.run.Name, core.LabelTask: labelValue(n.path)},
			OwnerReferences: []core.OwnerReference{
				{APIVersion: skiff.APIVersion, Kind: skiff.TaskKind, Name: n.task.Name, UID: n.task.UID, Controller: true},
			},
		},
		Spec: core.PodSpec{
			RestartPolicy:                 "Never",
			TerminationGracePeriodSeconds: &grace,
			Priority:                      &x.run.Spec.Priority,
			Containers:                    []core.Container{main},
			Skiff:                         ext,
		},
	}
	if err := x.mountArtifacts(pod, s); err != nil {
		return nil, err
	}
	if x.plat.Workspace() != nil {
		mount(pod, workspaceVolume(x.run.Name), workspacePath, false)
	}
	return pod, x.applyPlatform(pod, s)
}

// newStep resolves a container task's executor input.
func (x *execution) newStep(n *node) (*step, error) {
	s := &step{n: n, container: x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel].Container, platform: x.plat.Executor(n.component.ExecutorLabel)}
	if s.container == nil {
		return nil, fmt.Errorf("executor %q is not a container; nothing else can be run", n.component.ExecutorLabel)
	}
	uri := x.taskRoot(n)
	s.rootURI = uri
	var err error
	if s.root, err = x.c.artifacts.Locate(x.run.Namespace, uri); err != nil {
		return nil, fmt.Errorf("pipeline root: %w", err)
	}
	s.input = &kfp.ExecutorInput{
		Inputs: kfp.ExecutorInputs{ParameterValues: maps.Clone(n.inputs.params), Artifacts: map[string]kfp.ArtifactList{}},
		Outputs: kfp.ExecutorOutputs{
			Parameters: map[string]kfp.OutputParameter{},
			Artifacts:  map[string]kfp.ArtifactList{},
			OutputFile: path.Join(s.root.ContainerPath, executorOutput),
		},
	}
	for name, list := range n.inputs.artifacts {
		converted := kfp.ArtifactList{Artifacts: []kfp.RuntimeArtifact{}}
		for _, a := range list.items {
			handed := runtimeArtifact(a)
			if at, here := x.webCopy(a.Spec.URI); here && handed.CustomPath == "" {
				handed.CustomPath = at.ContainerPath // no path follows from an address
			}
			converted.Artifacts = append(converted.Artifacts, handed)
		}
		s.input.Inputs.Artifacts[name] = converted
	}
	for name := range n.component.OutputDefinitions.Parameters {
		s.input.Outputs.Parameters[name] = kfp.OutputParameter{OutputFile: path.Join(outputFolder, name)}
	}
	for name, def := range n.component.OutputDefinitions.Artifacts {
		s.input.Outputs.Artifacts[name] = kfp.ArtifactList{Artifacts: []kfp.RuntimeArtifact{{
			Name: name, Type: def.ArtifactType, URI: uri + "/" + name, Metadata: def.Metadata,
		}}}
	}
	s.context = x.exprContext(n, s.input)
	s.context.Component = n.component
	return s, nil
}

// taskRoot is the URI below which an attempt's outputs stand.
func (x *execution) taskRoot(n *node) string {
	return strings.TrimRight(x.pipelineRoot(), "/") + "/" + path.Join(
		sanitized(x.ir.PipelineInfo.Name, 63), x.run.Name, folderName(n.path), strconv.Itoa(n.task.Status.Attempts)+restartSuffix(n.restarts))
}

func restartSuffix(restarts int) string {
	if restarts == 0 {
		return ""
	}
	return "-r" + strconv.Itoa(restarts)
}

// pipelineRoot is the run's own, the manifest's, or the default.
func (x *execution) pipelineRoot() string {
	switch {
	case x.run.Spec.PipelineRoot != "":
		return x.run.Spec.PipelineRoot
	case x.ir.DefaultPipelineRoot != "":
		return x.ir.DefaultPipelineRoot
	default:
		return x.c.defaultRoot
	}
}

func runtimeArtifact(a *skiff.Artifact) kfp.RuntimeArtifact {
	metadata := make(map[string]any, len(a.Spec.Metadata))
	for key, raw := range a.Spec.Metadata {
		metadata[key] = decoded(raw)
	}
	if a.Spec.Workspace {
		metadata[workspaceMark] = true
	}
	return kfp.RuntimeArtifact{
		Name: a.Spec.DisplayName, URI: a.Spec.URI, CustomPath: a.Spec.CustomPath, Metadata: metadata,
		Type: kfp.ArtifactTypeSchema{SchemaTitle: a.Spec.SchemaTitle, SchemaVersion: a.Spec.SchemaVersion, InstanceSchema: a.Spec.InstanceSchema},
	}
}

// exprContext is what placeholders of a task resolve against.
func (x *execution) exprContext(n *node, input *kfp.ExecutorInput) *expr.Context {
	return &expr.Context{
		Input:           input,
		JobName:         x.run.Spec.DisplayName,
		JobResourceName: runResourceName(x.ir.PipelineInfo.Name, x.run.Name),
		JobUUID:         x.run.Name,
		TaskName:        n.key,
		TaskUUID:        n.task.Name,
		JobCreateTime:   x.run.CreationTimestamp,
		JobScheduleTime: x.run.CreationTimestamp,
		PipelineRoot:    x.pipelineRoot(),
		WorkspacePath:   workspacePath,
		ContainerPath:   x.containerPath,
	}
}

// mainContainer resolves the container itself.
func (s *step) mainContainer(x *execution) (core.Container, error) {
	c := core.Container{Name: mainContainer, Env: []core.EnvVar{{Name: retryIndex, Value: strconv.Itoa(s.n.task.Status.Attempts - 1)}}}
	var err error
	if c.Resources, err = s.resources(); err != nil {
		return c, fmt.Errorf("resources: %w", err)
	}
	quoted := *s.context
	quoted.Quote = s.quote()
	for _, variable := range s.container.Env {
		value, err := expr.ResolveString(variable.Value, &quoted)
		if err != nil {
			return c, fmt.Errorf("env %s: %w", variable.Name, err)
		}
		c.Env = append(c.Env, core.EnvVar{Name: variable.Name, Value: value})
	}
	if err := s.fillTaskConfig(&c); err != nil {
		return c, err
	}
	if c.Image, err = expr.ResolveString(s.container.Image, s.context); err != nil {
		return c, fmt.Errorf("image: %w", err)
	}
	if c.Command, c.Args, err = expr.Resolve(s.container.Command, s.container.Args, &quoted); err != nil {
		return c, err
	}
	return c, nil
}

// quote keeps a pod's own expansion of $(NAME) to where the pipeline's author
// refers to a variable of the component. Everything else, be it a value or a
// dollar in a program's text, reaches the command as it is.
func (s *step) quote() func(string, bool) string {
	names := make([]string, len(s.container.Env))
	for i, variable := range s.container.Env {
		names[i] = variable.Name
	}
	return func(part string, literal bool) string {
		if !strings.Contains(part, "$") {
			return part
		}
		if !literal {
			return strings.ReplaceAll(part, "$", "$$")
		}
		return quoteDollars(part, names)
	}
}

// quoteDollars doubles each dollar of a text but those before (NAME), for the
// names given: there they are a reference, or the escape of one.
func quoteDollars(text string, names []string) string {
	var b strings.Builder
	for {
		before, _, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		rest := strings.TrimLeft(text[len(before):], "$")
		dollars := text[len(before) : len(text)-len(rest)]
		reference := referenceAt(rest, names)
		if reference == "" {
			dollars += dollars
		}
		b.WriteString(dollars + reference)
		text = rest[len(reference):]
	}
}

// referenceAt is the "(NAME)" that text begins with, for one of the names.
func referenceAt(text string, names []string) string {
	for _, name := range names {
		if reference := "(" + name + ")"; strings.HasPrefix(text, reference) {
			return reference
		}
	}
	return ""
}

// fillTaskConfig gives the component its task's own settings where it asks for
// them. They go into the inputs, so it comes before the command is resolved.
func (s *step) fillTaskConfig(c *core.Container) error {
	for name, def := range s.n.component.InputDefinitions.Parameters {
		if def.Type() != kfp.ParameterTaskConfig {
			continue
		}
		config, err := taskConfig(s.n.component, c)
		if err != nil {
			return err
		}
		s.input.Inputs.ParameterValues[name] = config
	}
	handOver(s.n.component, c)
	return nil
}

// resources translates the IR's resources, whose text forms may hold placeholders.
func (s *step) resources() (core.ResourceRequirements, error) {
	return s.container.Resources.Requirements(func(text string) (string, error) { return expr.ResolveString(text, s.context) })
}

// extension carries what the launcher does around the command.
func (s *step) extension(x *execution, command []string) *core.PodExtension {
	ext := &core.PodExtension{InfrastructureRetries: s.n.restarts, Images: x.run.Spec.Images}
	if s.n.lastAttempt() {
		ext.HoldOnFailureSeconds = x.run.Spec.PauseOnFailureSeconds
	}
	if len(s.input.Outputs.Parameters) > 0 {
		ext.Directories = append(ext.Directories, outputFolder)
	}
	ext.Outputs = append(ext.Outputs, core.OutputFile{Name: executorOutput, Path: s.input.Outputs.OutputFile})
	for _, name := range sortedKeys(s.input.Outputs.Parameters) {
		ext.Outputs = append(ext.Outputs, core.OutputFile{Name: parameterOutput + name, Path: s.input.Outputs.Parameters[name].OutputFile})
	}
	if len(s.input.Outputs.Artifacts) > 0 {
		ext.Collect = &core.Collect{Manifest: s.input.Outputs.OutputFile, Paths: map[string]string{}}
		for name := range s.input.Outputs.Artifacts {
			ext.Collect.Paths[name] = path.Join(s.root.ContainerPath, name)
		}
	}
	for _, list := range s.input.Inputs.Artifacts {
		for _, a := range list.Artifacts {
			if a.CustomPath == "" {
				continue
			}
			if target, err := x.containerPath(a); err == nil && target != a.CustomPath {
				ext.Links = append(ext.Links, core.Link{Path: a.CustomPath, Target: target})
			}
		}
	}
	ext.Links = append(ext.Links, s.uriLinks()...)
	slices.SortFunc(ext.Links, func(a, b core.Link) int { return strings.Compare(a.Path, b.Path) })
	if !x.run.Spec.Verbatim {
		ext.Environment = recognisePrelude(s.container.Command, command)
	}
	return ext
}

// lastAttempt says whether a step that fails now has failed for good, as far as
// its own policy goes.
func (n *node) lastAttempt() bool {
	policy := n.spec.RetryPolicy
	return policy == nil || n.task.Status.Attempts-n.task.Status.Spent > policy.MaxRetryCount
}

// uriLinks lets a container component open artifacts by their URIs. Components
// are written so ("open(uri)") for runners whose URIs are plain paths; a name
// such as "minio:" in the working directory makes minio://bucket/key one, for
// to the kernel two slashes are one. Lightweight components go by the SDK's
// paths and need nothing.
func (s *step) uriLinks() []core.Link {
	used := false
	for _, text := range slices.Concat(s.container.Command, s.container.Args) {
		used = used || (strings.Contains(text, "{{$.") && strings.Contains(text, "puts.artifacts["))
	}
	if !used {
		return nil
	}
	scheme, _, _ := strings.Cut(s.rootURI, "://")
	folder, _, _ := strings.Cut(volumeKey(s.root.ContainerPath), "/")
	return []core.Link{{Path: scheme + ":", Target: "/" + folder, Optional: true}}
}

// mountArtifacts gives the pod the namespace's artifacts, read-only, and its
// own output folder over them.
func (x *execution) mountArtifacts(pod *core.Pod, s *step) error {
	roots, err := x.c.artifacts.MountRoots(x.run.Namespace)
	if err != nil {
		return err
	}
	for _, root := range roots {
		key := volumeKey(root.ContainerPath)
		mount(pod, core.Volume{Name: "artifacts-" + key, Artifact: &core.ArtifactVolume{Key: key}}, root.ContainerPath, true)
	}
	if !s.writes() {
		return mountModelCars(pod, s)
	}
	if err := x.c.artifacts.PrepareOutput(x.run.Namespace, x.taskRoot(s.n)); err != nil {
		return fmt.Errorf("prepare the output folder: %w", err)
	}
	mount(pod, core.Volume{Name: "outputs", Artifact: &core.ArtifactVolume{Key: volumeKey(s.root.ContainerPath)}}, s.root.ContainerPath, false)
	x.mountWebCopies(pod, s)
	return mountModelCars(pod, s)
}

// writes says whether the step can know a place in its output folder. One that
// has no outputs and asks for no value of its task cannot.
func (s *step) writes() bool {
	if len(s.input.Outputs.Artifacts) > 0 || len(s.input.Outputs.Parameters) > 0 {
		return true
	}
	texts := slices.Concat(s.container.Command, s.container.Args)
	for _, variable := range s.container.Env {
		texts = append(texts, variable.Value)
	}
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, "{{$") })
}

// volumeKey names a folder of the repository in a pod: its place as containers
// see it, without the leading slash.
func volumeKey(containerPath string) string { return strings.TrimPrefix(containerPath, "/") }

func mount(pod *core.Pod, volume core.Volume, at string, readOnly bool) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, volume)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.VolumeMounts = append(c.VolumeMounts, core.VolumeMount{Name: volume.Name, MountPath: at, ReadOnly: readOnly})
	}
}

// metadataOf is an artifact's metadata as stored.
func metadataOf(m map[string]any) map[string]json.RawMessage { return values(m).encoded() }
