package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

const (
	// debugLimit ends a pod that was made to look around in, in seconds, where
	// whoever made it has not: half a day is longer than anybody looks.
	debugLimit = 12 * 60 * 60
	// debugGrace is short: there is nothing in it to be finished.
	debugGrace = 2
)

// holdCommand does nothing until it is asked to end.
func holdCommand() []string {
	return []string{"sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait"}
}

// Debug makes a pod like a step's, with its image, environment, mounts and
// resources, in which nothing runs but a wait, and returns it with the command
// that the step ran. What the step may write among the artifacts is scratch
// space in it, so that the command can be run again without touching a result.
// The pod waits its turn like any other; its end is the caller's affair, or
// comes after debugLimit. Errors are store.ErrNotFound and those of Check.
//
// A step whose failed container is kept (core.ReasonPaused) is itself what there
// is to look around in: unless fresh is asked for, it is returned, and nothing is
// made.
func (c *Controller) Debug(ctx context.Context, namespace, name string, fresh bool) (*core.Pod, []string, error) {
	step, err := store.GetAs[*core.Pod](ctx, c.store, store.Key{Kind: KindName, Namespace: namespace, Name: name})
	if err != nil {
		return nil, nil, err
	}
	made, command, err := debugPod(step, c.pulls.Load())
	if err != nil {
		return nil, nil, err
	}
	if paused(step) && !fresh {
		return step, command, nil
	}
	if err := c.Check(&made.Spec); err != nil {
		return nil, nil, fmt.Errorf("debug pod %s: %w", name, err)
	}
	if _, err := c.store.Commit(ctx, store.Op{Verb: store.Create, Kind: KindName, Object: made}); err != nil {
		return nil, nil, fmt.Errorf("make the pod to debug %s in: %w", name, err)
	}
	return made, command, nil
}

// debugPod is pure. images says that the backend runs images, where the package
// prelude of a component is part of its command.
func debugPod(step *core.Pod, images bool) (*core.Pod, []string, error) {
	var spec core.PodSpec
	encoded, err := json.Marshal(step.Spec)
	if err == nil {
		err = json.Unmarshal(encoded, &spec)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("copy pod %s: %w", step.Name, err)
	}
	main := &spec.Containers[0]
	own := main.Command
	limit, grace := int64(debugLimit), int64(debugGrace)
	spec.RestartPolicy, spec.SchedulingGates = "Never", nil
	spec.ActiveDeadlineSeconds, spec.TerminationGracePeriodSeconds = &limit, &grace
	if ext := spec.Skiff; ext != nil {
		ext.Outputs, ext.Collect, ext.Stop, ext.InfrastructureRetries = nil, nil, false, 0
		ext.Gang, ext.GangSize = "", 0
		ext.HoldOnFailureSeconds, ext.Release = 0, false
		if ext.Environment != nil {
			if !images {
				own = ext.Environment.Command
			}
			ext.Environment.Command = holdCommand()
		}
	}
	_, lookup := environment(main.Env)
	command := append(expandAll(own, lookup), expandAll(main.Args, lookup)...)
	main.Command, main.Args, main.RestartPolicy = holdCommand(), nil, ""
	for i := range spec.Volumes {
		if v := &spec.Volumes[i]; v.Artifact != nil && writable(&spec, v.Name) {
			v.Artifact, v.EmptyDir = nil, &core.EmptyDirVolume{}
		}
	}
	prefix := step.Name
	if len(prefix) > 40 {
		prefix = prefix[:40]
	}
	return &core.Pod{
		TypeMeta: core.TypeMeta{APIVersion: "v1", Kind: core.PodKind},
		ObjectMeta: core.ObjectMeta{
			Name:      fmt.Sprintf("debug-%s-%s", strings.Trim(prefix, "-."), uuid.NewString()[:8]),
			Namespace: step.Namespace, Labels: map[string]string{core.LabelDebug: "true"},
			Annotations: map[string]string{core.LabelDebug: step.Name},
		},
		Spec: spec,
	}, command, nil
}

// writable reports whether a container of the pod may write to a volume.
func writable(spec *core.PodSpec, volume string) bool {
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			if m.Name == volume && !m.ReadOnly {
				return true
			}
		}
	}
	return false
}
