package pipeline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/problem"
)

// honoured are the fields of the Kubernetes platform document that steps get.
// The others are refused by name at the door: a step that silently runs without
// the secret it asked for is worse than one that does not run.
var honoured = map[string]string{
	"activeDeadlineSeconds": "the step's time limit",
	"emptyDirMounts":        "folders that live as long as the step",
	"imagePullPolicy":       "when the image is fetched",
	"podMetadata":           "labels and annotations of the pod",
	"tolerations":           "this node has no taints, so there is nothing to tolerate",
}

// stubImages are executed by the engine of the cluster and never run; here they
// wait for volume claims to be objects.
var stubImages = []string{"argostub/createpvc", "argostub/deletepvc"}

// unsupported names what a package asks for and this release does not do.
func (c *Controller) unsupported(pkg *kfp.Package) problem.List {
	var problems problem.List
	for _, label := range sortedKeys(pkg.Spec.DeploymentSpec.Executors) {
		executor := pkg.Spec.DeploymentSpec.Executors[label]
		if executor.Importer != nil && executor.Importer.DownloadToWorkspace {
			problems.Add("deploymentSpec.executors."+label+".importer.downloadToWorkspace", "downloadToWorkspace is not supported yet").
				Hint = "leave it out: tasks read the artifact where it is, nothing is copied"
		}
		container := executor.Container
		if container != nil && slices.Contains(stubImages, container.Image) {
			problems.Add("deploymentSpec.executors."+label+".container.image", "%s stands for an operation on volume claims, which is not supported yet", container.Image).
				Hint = "use the run's workspace (pipeline_config) to share files between steps"
		}
		for _, feature := range kfp.PlatformFeatures(pkg.Platform.Executor(label)) {
			if honoured[feature] == "" {
				problems.Add("platforms.kubernetes.deploymentSpec.executors."+label+"."+feature, "%s is not supported yet", feature).
					Hint = "remove it, or run this pipeline on a cluster"
			}
		}
	}
	return problems
}

// applyPlatform gives a pod what its executor's platform settings ask for.
func applyPlatform(pod *core.Pod, s *step) error {
	p := s.platform
	if p == nil {
		return nil
	}
	if p.ActiveDeadlineSeconds > 0 {
		pod.Spec.ActiveDeadlineSeconds = &p.ActiveDeadlineSeconds
	}
	pod.Spec.Containers[0].ImagePullPolicy = p.ImagePullPolicy
	if p.PodMetadata != nil {
		for key, value := range p.PodMetadata.Labels {
			if !strings.HasPrefix(key, "skiff.dev/") {
				pod.Labels[key] = value
			}
		}
		pod.Annotations = p.PodMetadata.Annotations
	}
	for i, dir := range p.EmptyDirMounts {
		volume := core.Volume{Name: dir.VolumeName, EmptyDir: &core.EmptyDirVolume{}}
		if volume.Name == "" {
			volume.Name = fmt.Sprintf("empty-%d", i)
		}
		if dir.Medium != nil {
			volume.EmptyDir.Medium = *dir.Medium
		}
		if dir.SizeLimit != nil && *dir.SizeLimit != "" {
			limit, err := core.ParseQuantity(*dir.SizeLimit)
			if err != nil {
				return fmt.Errorf("emptyDirMounts[%d].sizeLimit: %w", i, err)
			}
			volume.EmptyDir.SizeLimit = limit
		}
		mount(pod, volume, dir.MountPath, false)
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
