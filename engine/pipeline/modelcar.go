package pipeline

import (
	"fmt"
	"path"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

const (
	// modelCarScheme begins the URI of an artifact that is an image.
	modelCarScheme = "oci://"
	// modelCarFolder is where components find such artifacts, and modelCarModels
	// what of the image they are given: both as published.
	modelCarFolder = "/oci"
	modelCarModels = "models"
)

// containerPath is where containers see an artifact that has no path of its own.
func (x *execution) containerPath(a kfp.RuntimeArtifact) (string, error) {
	switch {
	case a.Metadata[workspaceMark] == true:
		key, err := workspaceKey(a.URI)
		return path.Join(workspacePath, key), err
	case strings.HasPrefix(a.URI, modelCarScheme):
		return modelCarPath(a.URI)
	}
	location, err := x.c.artifacts.Locate(x.run.Namespace, a.URI)
	if err == nil && location.Web() && !x.c.artifacts.Exists(x.run.Namespace, a.URI) {
		err = fmt.Errorf("artifact %s: it is handed on as an address alone; with --pipeline-urls=public it is fetched", a.URI)
	}
	return location.ContainerPath, err
}

// modelCarPath is where the models of an image are, for artifacts of any type:
// on the cluster the type is not looked at either.
func modelCarPath(uri string) (string, error) {
	name := strings.ReplaceAll(strings.TrimPrefix(uri, modelCarScheme), "/", "_")
	if name == "" || name == "." || name == ".." {
		return "", fmt.Errorf("artifact %q: it names no image", uri)
	}
	return path.Join(modelCarFolder, name, modelCarModels), nil
}

// mountModelCars gives a pod the models of its input artifacts that are images.
func mountModelCars(pod *core.Pod, s *step) error {
	mounted := map[string]string{} // images by their places
	for _, name := range sortedKeys(s.input.Inputs.Artifacts) {
		for _, a := range s.input.Inputs.Artifacts[name].Artifacts {
			image, found := strings.CutPrefix(a.URI, modelCarScheme)
			if !found {
				continue
			}
			at, err := modelCarPath(a.URI)
			if err != nil {
				return fmt.Errorf("input artifact %q: %w", name, err)
			}
			if other, taken := mounted[at]; taken {
				if other != image {
					return fmt.Errorf("input artifact %q: the images %s and %s have one place, %s", name, image, other, at)
				}
				continue
			}
			mounted[at] = image
			volume := core.Volume{Name: "oci-" + shortHash(image), Image: &core.ImageVolume{Reference: image}}
			mount(pod, volume, at, true)
			for i := range pod.Spec.Containers {
				mounts := pod.Spec.Containers[i].VolumeMounts
				mounts[len(mounts)-1].SubPath = modelCarModels
			}
		}
	}
	return nil
}
