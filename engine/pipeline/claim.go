package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// claimsKind is where engine/pod keeps claims; see podsKind.
const claimsKind = "persistentvolumeclaims"

// Images that stand for an operation on a claim. The engine does it itself; no
// such image is ever fetched.
const (
	createClaimImage = "argostub/createpvc"
	deleteClaimImage = "argostub/deletepvc"
)

// claimOperation reports whether a node is one, and which.
func (x *execution) claimOperation(n *node) string {
	executor := x.ir.DeploymentSpec.Executors[n.component.ExecutorLabel]
	if executor == nil || executor.Container == nil {
		return ""
	}
	switch image := executor.Container.Image; image {
	case createClaimImage, deleteClaimImage:
		return image
	}
	return ""
}

// startClaimOperation makes or deletes a claim. What is done is durable before
// the task is settled; a daemon that dies in between finds it done.
func (x *execution) startClaimOperation(ctx context.Context, n *node, image string) {
	again := n.state() == skiff.StateRunning
	if !again {
		n.task.Status.Attempts++
	}
	x.begun(n)
	var err error
	n.outputs = values{}
	if name := x.claimBefore(ctx, n, image); name != "" {
		n.outputs["name"] = name
	} else if image == createClaimImage {
		err = x.createClaim(ctx, n)
	} else {
		err = x.deleteClaim(ctx, n, again)
	}
	if err != nil {
		x.fail(n, reasonInputs, err)
		return
	}
	x.settle(n, skiff.StateSucceeded, "", "")
}

func (x *execution) createClaim(ctx context.Context, n *node) error {
	claim, err := x.claimOf(n)
	if err != nil {
		return fmt.Errorf("create a claim: %w", err)
	}
	n.outputs["name"] = claim.Name
	_, err = x.c.store.Commit(ctx, store.Op{Verb: store.Create, Kind: claimsKind, Object: claim})
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	obj, err := x.c.store.Get(ctx, store.Key{Kind: claimsKind, Namespace: claim.Namespace, Name: claim.Name})
	if err == nil && obj.Metadata().Labels[labelMadeBy] != claim.Labels[labelMadeBy] {
		err = fmt.Errorf("create claim %q: there is one of this name already; give it a name of its own, or pvc_name_suffix", claim.Name)
	}
	return err
}

// labelMadeBy tells a task its own claim from another of that name.
const labelMadeBy = "skiff.dev/made-by"

// claimOf is the claim that a task's inputs describe, by the names of KFP.
func (x *execution) claimOf(n *node) (*core.PersistentVolumeClaim, error) {
	text := func(input string) string {
		value, _ := n.inputs.params[input].(string)
		return value
	}
	name, suffix := text("pvc_name"), text("pvc_name_suffix")
	switch {
	case name != "" && suffix != "":
		return nil, errors.New("pvc_name and pvc_name_suffix: only one may be given")
	case name == "" && suffix != "":
		name = x.run.Name + "-" + strings.TrimPrefix(suffix, "-")
	case name == "":
		name = x.run.Name + "-" + shortHash(n.path)
	}
	claim := &core.PersistentVolumeClaim{
		TypeMeta: core.TypeMeta{APIVersion: "v1", Kind: core.PersistentVolumeClaimKind},
		ObjectMeta: core.ObjectMeta{
			Name: name, Namespace: x.run.Namespace,
			Labels: map[string]string{core.LabelRun: x.run.Name, labelMadeBy: n.task.Name},
		},
	}
	modes, _ := n.inputs.params["access_modes"].([]any)
	for _, mode := range modes {
		claim.Spec.AccessModes = append(claim.Spec.AccessModes, fmt.Sprint(mode))
	}
	size, err := quantity(text("size"))
	if err != nil {
		return nil, fmt.Errorf("size: %w", err)
	}
	claim.Spec.Resources.Requests = map[string]core.Quantity{core.ResourceStorage: size}
	if class, given := n.inputs.params["storage_class_name"].(string); given {
		claim.Spec.StorageClassName = &class
	}
	claim.Spec.VolumeName = text("volume_name")
	if annotations, given := n.inputs.params["annotations"].(map[string]any); given {
		claim.Annotations = make(map[string]string, len(annotations))
		for key, value := range annotations {
			claim.Annotations[key] = fmt.Sprint(value)
		}
	}
	if source, given := n.inputs.params["data_source"].(map[string]any); given && len(source) > 0 {
		return nil, errors.New("data_source: there are no snapshots to make a claim from; leave it out")
	}
	claim.Default()
	return claim, claim.Validate()
}

// deleteClaim asks for the end of a claim. It goes once nothing mounts it. again
// says that this task asked before, so that it may be gone already.
func (x *execution) deleteClaim(ctx context.Context, n *node, again bool) error {
	name, _ := n.inputs.params["pvc_name"].(string)
	if name == "" {
		return errors.New("delete a claim: pvc_name is empty")
	}
	if !again {
		// The intent is durable before the act: whoever comes after this daemon
		// then knows why the claim is gone.
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
	key := store.Key{Kind: claimsKind, Namespace: x.run.Namespace, Name: name}
	if claim, err := x.c.store.Get(ctx, key); err == nil && len(claim.Metadata().OwnerReferences) > 0 {
		return fmt.Errorf("delete claim %q: it is the workspace of a run, and goes with that", name)
	}
	_, err := x.c.store.Commit(ctx, store.Op{Verb: store.Delete, Key: key})
	if errors.Is(err, store.ErrNotFound) && again {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete claim %q: %w", name, err)
	}
	return nil
}

// claimName is the claim that a step mounts, named in the new way or in one of
// the three old ones.
func (x *execution) claimName(n *node, m kfp.PVCMount) (string, error) {
	spec := m.PVCNameParameter
	if spec == nil && (m.TaskOutputParameter != nil || m.ComponentInputParameter != "") {
		spec = &kfp.InputParameterSpec{TaskOutputParameter: m.TaskOutputParameter, ComponentInputParameter: m.ComponentInputParameter}
	}
	name, err := x.platformName(n, spec, m.Constant)
	if err == nil && name == "" {
		err = fmt.Errorf("no claim was named: the input holds nothing")
	}
	return name, err
}
