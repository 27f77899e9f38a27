package core

import (
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
)

// PersistentVolumeClaimKind is the kind string of a PersistentVolumeClaim.
const PersistentVolumeClaimKind = "PersistentVolumeClaim"

// PersistentVolumeClaim is a volume that outlives the pods which mount it
// (core/v1 PersistentVolumeClaim). The volume itself belongs to the backend; it
// goes when the object goes.
type PersistentVolumeClaim struct {
	TypeMeta
	ObjectMeta `json:"metadata"`
	Spec       PersistentVolumeClaimSpec   `json:"spec"`
	Status     PersistentVolumeClaimStatus `json:"status,omitzero"`
}

// PersistentVolumeClaimSpec is what is asked for. On one machine every access
// mode can be had; the size is noted and not enforced.
type PersistentVolumeClaimSpec struct {
	AccessModes      []string             `json:"accessModes,omitempty"`
	Resources        ResourceRequirements `json:"resources,omitzero"`
	StorageClassName *string              `json:"storageClassName,omitempty"`
	VolumeName       string               `json:"volumeName,omitempty"`
	VolumeMode       string               `json:"volumeMode,omitempty"` // Filesystem
	DataSource       *TypedReference      `json:"dataSource,omitempty"`
}

// TypedReference names an object of the same namespace and its kind.
type TypedReference struct {
	APIGroup string `json:"apiGroup,omitempty"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
}

// PersistentVolumeClaimStatus is what was observed of a claim.
type PersistentVolumeClaimStatus struct {
	Phase       string              `json:"phase,omitempty"` // Bound, once the object is there
	AccessModes []string            `json:"accessModes,omitempty"`
	Capacity    map[string]Quantity `json:"capacity,omitempty"`
}

// FinalizerVolume keeps a claim until nothing mounts it and its volume is gone.
const FinalizerVolume = "skiff.dev/volume"

// ResourceStorage is the name of a claim's size.
const ResourceStorage = "storage"

// AccessModes are the published access modes.
func AccessModes() []string {
	return []string{"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
}

// VolumeID is the name of the volume behind the claim at the backend. It holds
// the uid: a claim that is made anew does not find what the old one left. Claims
// that are part of another object are named after that, and so never made anew.
func (c *PersistentVolumeClaim) VolumeID() string {
	if len(c.OwnerReferences) > 0 {
		return c.Name
	}
	uid, _, _ := strings.Cut(c.UID, "-")
	name := c.Name
	if most := maxNameBytes - len(uid) - 1; len(name) > most {
		name = name[:most]
	}
	return name + "-" + uid
}

// Default fills in what the engine adds: the finalizer, and what can be said of
// the volume at once, since on one machine any claim is met.
func (c *PersistentVolumeClaim) Default() {
	if !slices.Contains(c.Finalizers, FinalizerVolume) {
		c.Finalizers = append(c.Finalizers, FinalizerVolume)
	}
	c.Status = PersistentVolumeClaimStatus{Phase: "Bound", AccessModes: c.Spec.AccessModes, Capacity: c.Spec.Resources.Requests}
}

// Validate checks a claim.
func (c *PersistentVolumeClaim) Validate() error {
	var list problem.List
	validateName(&list, c.Name, c.GenerateName)
	if len(c.Spec.AccessModes) == 0 {
		list.Add("spec.accessModes", "at least one is required, of %q", AccessModes())
	}
	for _, mode := range c.Spec.AccessModes {
		if !slices.Contains(AccessModes(), mode) {
			list.Add("spec.accessModes", "%q is not one of %q", mode, AccessModes())
		}
	}
	if c.Spec.Resources.Requests[ResourceStorage].IsZero() {
		list.Add("spec.resources.requests.storage", "a size above 0 is required, such as 1Gi")
	}
	if c.Spec.VolumeMode != "" && c.Spec.VolumeMode != "Filesystem" {
		list.Add("spec.volumeMode", "%q: only Filesystem is supported", c.Spec.VolumeMode)
	}
	return list.OrNil()
}
