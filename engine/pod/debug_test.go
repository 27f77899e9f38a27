package pod

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
)

// TestDebugPod: all that the step had, nothing that it ran or could spoil.
func TestDebugPod(t *testing.T) {
	step := &core.Pod{
		ObjectMeta: core.ObjectMeta{Name: strings.Repeat("long-", 12), Namespace: "team", UID: "u",
			Labels:          map[string]string{core.LabelRun: "r", core.LabelTask: "t"},
			OwnerReferences: []core.OwnerReference{{UID: "task"}}, Finalizers: []string{Finalizer}},
		Spec: core.PodSpec{
			RestartPolicy: "OnFailure", SchedulingGates: []core.SchedulingGate{{Name: core.GateInputs}},
			Containers: []core.Container{{
				Name: "main", Image: "python:3.11", WorkingDir: "/work", Env: []core.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2"}},
				Command: []string{"sh", "-c", "echo $(B) $$(B) $0"}, Args: []string{"$(A)", "$(NONE)"},
				VolumeMounts: []core.VolumeMount{{Name: "artifacts", MountPath: "/minio", ReadOnly: true}, {Name: "outputs", MountPath: "/minio/out"}, {Name: "claim", MountPath: "/data"}},
			}},
			Volumes: []core.Volume{
				{Name: "artifacts", Artifact: &core.ArtifactVolume{Key: "minio"}}, {Name: "outputs", Artifact: &core.ArtifactVolume{Key: "minio/out"}},
				{Name: "claim", PersistentVolumeClaim: &core.PersistentVolumeClaimVolume{ClaimName: "c"}},
			},
			Skiff: &core.PodExtension{
				Directories: []string{"/tmp/kfp/outputs"}, Outputs: []core.OutputFile{{Name: "x", Path: "/x"}}, Links: []core.Link{{Path: "minio:", Target: "/minio"}},
				Collect: &core.Collect{Manifest: "/m"}, Pools: map[string]int64{"licence": 1}, Stop: true, InfrastructureRetries: 2, Gang: "g", GangSize: 3,
			},
		},
	}
	made, command, err := debugPod(step, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sh", "-c", "echo 12 $(B) $0", "1", "$(NONE)"}, command); diff != "" {
		t.Error(diff)
	}
	if made.Namespace != "team" || len(made.Name) > 63 || made.Annotations[core.LabelDebug] != step.Name || made.UID != "" ||
		len(made.OwnerReferences)+len(made.Finalizers) != 0 || made.Labels[core.LabelRun] != "" {
		t.Errorf("metadata %+v", made.ObjectMeta)
	}
	want := step.Spec
	limit, grace := int64(debugLimit), int64(debugGrace)
	want.RestartPolicy, want.SchedulingGates, want.ActiveDeadlineSeconds, want.TerminationGracePeriodSeconds = "Never", nil, &limit, &grace
	want.Containers = slices.Clone(step.Spec.Containers)
	want.Containers[0].Command, want.Containers[0].Args = holdCommand(), nil
	want.Volumes = slices.Clone(step.Spec.Volumes)
	want.Volumes[1] = core.Volume{Name: "outputs", EmptyDir: &core.EmptyDirVolume{}}
	want.Skiff = &core.PodExtension{Directories: []string{"/tmp/kfp/outputs"}, Links: []core.Link{{Path: "minio:", Target: "/minio"}}, Pools: map[string]int64{"licence": 1}}
	if diff := cmp.Diff(want, made.Spec, cmp.AllowUnexported(core.Quantity{})); diff != "" {
		t.Error(diff)
	}
	if step.Spec.Containers[0].Command[0] != "sh" || step.Spec.Volumes[1].Artifact == nil || !step.Spec.Skiff.Stop {
		t.Error("the step itself was changed")
	}
	again, _, err := debugPod(step, true)
	if err != nil || again.Name == made.Name {
		t.Errorf("two have one name: %s %v", again.Name, err)
	}
}

// TestDebugPodOfAPrelude: where packages are prepared once, the command is the
// one behind the prelude; the packages stay in both cases.
func TestDebugPodOfAPrelude(t *testing.T) {
	step := &core.Pod{ObjectMeta: core.ObjectMeta{Name: "s"}, Spec: core.PodSpec{
		Containers: []core.Container{{Name: "main", Command: []string{"sh", "-c", "pip install x && python"}}},
		Skiff:      &core.PodExtension{Environment: &core.Environment{Calls: []core.PipCall{{Packages: []string{"x"}}}, Command: []string{"python"}}},
	}}
	for images, want := range map[bool][]string{true: {"sh", "-c", "pip install x && python"}, false: {"python"}} {
		made, command, err := debugPod(step, images)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, command); diff != "" {
			t.Errorf("images %v: %s", images, diff)
		}
		wantEnv := &core.Environment{Calls: step.Spec.Skiff.Environment.Calls, Command: holdCommand()}
		if diff := cmp.Diff(wantEnv, made.Spec.Skiff.Environment); diff != "" {
			t.Error(diff)
		}
	}
}
