package pipeline

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
)

func TestModelCarPath(t *testing.T) {
	// The places are those that the SDK computes for a model's path.
	for uri, want := range map[string]string{
		"oci://registry.domain.local/modelcar:test": "/oci/registry.domain.local_modelcar:test/models",
		"oci://quay.io/org/repo:latest":             "/oci/quay.io_org_repo:latest/models",
		"oci://model":                               "/oci/model/models",
		"oci://":                                    "",
		"oci://..":                                  "",
	} {
		got, err := modelCarPath(uri)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("modelCarPath(%q) = %q, %v; want %q", uri, got, err, want)
		}
	}
}

func TestMountModelCars(t *testing.T) {
	list := func(uris ...string) kfp.ArtifactList {
		var l kfp.ArtifactList
		for _, uri := range uris {
			l.Artifacts = append(l.Artifacts, kfp.RuntimeArtifact{URI: uri})
		}
		return l
	}
	stepOf := func(artifacts map[string]kfp.ArtifactList) *step {
		return &step{input: &kfp.ExecutorInput{Inputs: kfp.ExecutorInputs{Artifacts: artifacts}}}
	}
	pod := &core.Pod{Spec: core.PodSpec{Containers: []core.Container{{Name: mainContainer}}}}
	err := mountModelCars(pod, stepOf(map[string]kfp.ArtifactList{
		"a": list("oci://host/a:1", "minio://bucket/key"), "b": list("oci://b", "oci://host/a:1"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	first, second := "oci-"+shortHash("host/a:1"), "oci-"+shortHash("b")
	wantVolumes := []core.Volume{
		{Name: first, Image: &core.ImageVolume{Reference: "host/a:1"}},
		{Name: second, Image: &core.ImageVolume{Reference: "b"}},
	}
	wantMounts := []core.VolumeMount{
		{Name: first, MountPath: "/oci/host_a:1/models", SubPath: "models", ReadOnly: true},
		{Name: second, MountPath: "/oci/b/models", SubPath: "models", ReadOnly: true},
	}
	if diff := cmp.Diff(wantVolumes, pod.Spec.Volumes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(wantMounts, pod.Spec.Containers[0].VolumeMounts); diff != "" {
		t.Error(diff)
	}
	for name, artifacts := range map[string]map[string]kfp.ArtifactList{
		"no image":  {"a": list("oci://")},
		"one place": {"a": list("oci://x/y"), "b": list("oci://x_y")},
	} {
		if err := mountModelCars(&core.Pod{}, stepOf(artifacts)); err == nil {
			t.Errorf("%s: was let through", name)
		}
	}
}
