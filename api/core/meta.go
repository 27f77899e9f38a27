package core

import "time"

// TypeMeta names an object's published type.
type TypeMeta struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
}

// Type returns the receiver, so that any embedding object offers it.
func (t *TypeMeta) Type() *TypeMeta { return t }

// ObjectMeta is the metadata of every stored object (meta/v1 ObjectMeta).
type ObjectMeta struct {
	Name         string `json:"name,omitempty"`
	GenerateName string `json:"generateName,omitempty"`
	Namespace    string `json:"namespace,omitempty"`
	UID          string `json:"uid,omitempty"`
	// ResourceVersion is the store revision of the last write, in decimal.
	ResourceVersion string `json:"resourceVersion,omitempty"`
	// Generation counts changes of the desired state.
	Generation        int64             `json:"generation,omitempty"`
	CreationTimestamp time.Time         `json:"creationTimestamp,omitzero"`
	DeletionTimestamp *time.Time        `json:"deletionTimestamp,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	OwnerReferences   []OwnerReference  `json:"ownerReferences,omitempty"`
	Finalizers        []string          `json:"finalizers,omitempty"`
}

// Metadata returns the receiver, so that any embedding object offers it.
func (m *ObjectMeta) Metadata() *ObjectMeta { return m }

// OwnerReference names an object whose deletion takes this one along.
type OwnerReference struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	Name               string `json:"name"`
	UID                string `json:"uid"`
	Controller         bool   `json:"controller,omitempty"`
	BlockOwnerDeletion bool   `json:"blockOwnerDeletion,omitempty"`
}

// Object is anything the store keeps. Embedding TypeMeta and ObjectMeta
// provides both methods.
type Object interface {
	Type() *TypeMeta
	Metadata() *ObjectMeta
}

// Condition is one observed aspect of an object (meta/v1 Condition).
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"` // "True", "False" or "Unknown"
	Reason             string    `json:"reason,omitempty"`
	Message            string    `json:"message,omitempty"`
	LastTransitionTime time.Time `json:"lastTransitionTime,omitzero"`
}

// SetCondition adds c to list or replaces the condition of the same type. The
// transition time moves only when the status does.
func SetCondition(list []Condition, c Condition) []Condition {
	for i := range list {
		if list[i].Type != c.Type {
			continue
		}
		if list[i].Status == c.Status {
			c.LastTransitionTime = list[i].LastTransitionTime
		}
		list[i] = c
		return list
	}
	return append(list, c)
}

// FindCondition returns the condition of the given type, or nil.
func FindCondition(list []Condition, conditionType string) *Condition {
	for i := range list {
		if list[i].Type == conditionType {
			return &list[i]
		}
	}
	return nil
}

// Labels that skiff puts on what it makes. Others script against the first
// three, so they never change without a release note.
const (
	LabelRun  = "skiff.dev/run"
	LabelTask = "skiff.dev/task"
	LabelPod  = "skiff.dev/pod"

	// LabelDebug marks a pod that was made to look around in; as an annotation
	// it names the pod that it is like.
	LabelDebug = "skiff.dev/debug"

	// AnnotationImport names the import that made an object.
	AnnotationImport = "skiff.dev/import"

	// LabelStore carries the id of the store a container belongs to, so that
	// two daemons on one Docker engine leave each other's alone.
	LabelStore = "skiff.dev/store"
	// LabelPodUID carries the pod's uid; LabelContainer the container's name in it.
	LabelPodUID    = "skiff.dev/pod-uid"
	LabelContainer = "skiff.dev/container"
)
