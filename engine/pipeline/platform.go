package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
)

// Annotations by which KFP's own pods tell of their run.
const (
	annotationRunName = "pipelines.kubeflow.org/run_name"
	annotationRunID   = "pipelines.kubeflow.org/run_id"
)

// refused are the fields of the Kubernetes platform document that steps do not
// get. They are refused by name at the door: a step that silently runs without
// what it asked for is worse than one that does not run.
var refused = map[string]string{
	"podResourceClaims": "ask for an accelerator instead (set_accelerator_type, set_accelerator_limit)",
}

// unsupported names what a package asks for and this release does not do.
func (c *Controller) unsupported(pkg *kfp.Package) problem.List {
	var problems problem.List
	for _, label := range sortedKeys(pkg.Spec.DeploymentSpec.Executors) {
		for _, feature := range kfp.PlatformFeatures(pkg.Platform.Executor(label)) {
			if hint := refused[feature]; hint != "" {
				problems.Add("platforms.kubernetes.deploymentSpec.executors."+label+"."+feature, "%s is not supported", feature).Hint = hint
			}
		}
	}
	return problems
}

// applyPlatform gives a pod what its executor's platform settings ask for.
func (x *execution) applyPlatform(pod *core.Pod, s *step) error {
	p := s.platform
	if p == nil {
		return nil
	}
	if p.ActiveDeadlineSeconds > 0 {
		pod.Spec.ActiveDeadlineSeconds = &p.ActiveDeadlineSeconds
	}
	// As on the cluster, whose pods tell these two of their run.
	pod.Annotations = map[string]string{annotationRunName: x.run.Spec.DisplayName, annotationRunID: x.run.Name}
	main := &pod.Spec.Containers[0]
	main.ImagePullPolicy = p.ImagePullPolicy
	if c := p.SecurityContext; c != nil {
		main.SecurityContext = &core.SecurityContext{RunAsUser: c.RunAsUser, RunAsGroup: c.RunAsGroup, RunAsNonRoot: c.RunAsNonRoot}
	}
	if p.PodMetadata != nil {
		for key, value := range p.PodMetadata.Labels {
			if !strings.HasPrefix(key, "skiff.dev/") {
				pod.Labels[key] = value
			}
		}
		maps.Copy(pod.Annotations, p.PodMetadata.Annotations)
	}
	for i, ref := range p.ImagePullSecret {
		name, err := x.platformName(s.n, ref.SecretNameParameter, ref.SecretName)
		if err != nil {
			return fmt.Errorf("imagePullSecret[%d]: %w", i, err)
		}
		if name != "" {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, core.LocalReference{Name: name})
		}
	}
	for _, apply := range []func(*core.Pod, *step) error{
		x.applyVariables, x.applyPlacement, x.applySettingVolumes, x.applyVolumes, x.applyInitContainers,
	} {
		if err := apply(pod, s); err != nil {
			return err
		}
	}
	return nil
}

// taskConfig is what a parameter of type TASK_CONFIG holds: the parts of the
// task's own pod settings that its component asks to be handed, for a component
// that launches a workload of its own. The keys are those of the published
// dsl.TaskConfig.
func taskConfig(component *kfp.ComponentSpec, c *core.Container) (map[string]any, error) {
	config := map[string]any{}
	for _, passthrough := range component.TaskConfigPassthroughs {
		var part any
		var key string
		switch passthrough.Field {
		case kfp.ConfigResources:
			key, part = "resources", c.Resources
		case kfp.ConfigEnv:
			key, part = "env", slices.DeleteFunc(slices.Clone(c.Env), func(e core.EnvVar) bool { return e.Name == retryIndex })
		default:
			continue // nothing else can be set on a task yet
		}
		data, err := json.Marshal(part)
		if err != nil {
			return nil, fmt.Errorf("task config %s: %w", key, err)
		}
		var plain any
		if err := json.Unmarshal(data, &plain); err != nil {
			return nil, fmt.Errorf("task config %s: %w", key, err)
		}
		config[key] = plain
	}
	return config, nil
}

// handOver takes away from a container what its component wants handed over and
// not applied to its own task.
func handOver(component *kfp.ComponentSpec, c *core.Container) {
	for _, passthrough := range component.TaskConfigPassthroughs {
		if passthrough.ApplyToTask {
			continue
		}
		switch passthrough.Field {
		case kfp.ConfigResources:
			c.Resources = core.ResourceRequirements{}
		case kfp.ConfigEnv:
			c.Env = slices.DeleteFunc(slices.Clone(c.Env), func(e core.EnvVar) bool { return e.Name != retryIndex })
		}
	}
}
