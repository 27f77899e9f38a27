package pod

import (
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// KindName is the name under which the store keeps pods; the others are what
// pods refer to.
const (
	KindName   = "pods"
	Secrets    = "secrets"
	ConfigMaps = "configmaps"
	Claims     = "persistentvolumeclaims"
)

// Indexes of the kind.
const (
	// IndexActive holds, under the one value "active", the pods that this
	// controller still has work with: those that have not ended, and those that
	// are to be deleted.
	IndexActive = "active"
	// IndexRun lists pods by their run: namespace, '/', the label skiff.dev/run.
	IndexRun = "run"
	// IndexTask lists pods by the uid of the object that owns them.
	IndexTask = "owner"
	// IndexOwner lists claims that are part of another object by that: its kind,
	// '/', its name. IndexDeleted holds, under the one value "deleted", the claims
	// that are to go.
	IndexOwner   = "owner"
	IndexDeleted = "deleted"
	// IndexUID finds a pod by its uid.
	IndexUID = "uid"
)

// active is the one value of IndexActive, deleted that of IndexDeleted.
const (
	active  = "active"
	deleted = "deleted"
)

// Finalizer keeps a pod in the store until its containers and its folder are gone.
const Finalizer = core.PodFinalizer

// Kinds declares to the store pods and what they refer to.
func Kinds() []store.Kind {
	return []store.Kind{
		Kind(),
		{Name: Secrets, New: func() core.Object { return new(core.Secret) }, Sealed: true},
		{Name: ConfigMaps, New: func() core.Object { return new(core.ConfigMap) }},
		{Name: Claims, New: func() core.Object { return new(core.PersistentVolumeClaim) }, Indexes: []store.Index{
			{Name: IndexOwner, Values: func(obj core.Object) []string {
				var owners []string
				for _, o := range obj.Metadata().OwnerReferences {
					owners = append(owners, o.Kind+"/"+o.Name)
				}
				return owners
			}},
			{Name: IndexDeleted, Values: func(obj core.Object) []string {
				if obj.Metadata().DeletionTimestamp == nil {
					return nil
				}
				return []string{deleted}
			}},
		}},
	}
}

// Kind declares pods to the store.
func Kind() store.Kind {
	return store.Kind{
		Name: KindName,
		New:  func() core.Object { return new(core.Pod) },
		Indexes: []store.Index{
			{Name: IndexActive, Values: func(obj core.Object) []string {
				p := obj.(*core.Pod)
				if p.Status.Phase.Terminal() && p.DeletionTimestamp == nil {
					return nil
				}
				return []string{active}
			}},
			{Name: IndexRun, Values: func(obj core.Object) []string {
				m := obj.Metadata()
				if run := m.Labels[core.LabelRun]; run != "" {
					return []string{RunIndexValue(m.Namespace, run)}
				}
				return nil
			}},
			{Name: IndexTask, Values: func(obj core.Object) []string {
				var owners []string
				for _, o := range obj.Metadata().OwnerReferences {
					owners = append(owners, o.UID)
				}
				return owners
			}},
			{Name: IndexUID, Values: func(obj core.Object) []string { return []string{obj.Metadata().UID} }},
		},
	}
}

// RunIndexValue is the value of IndexRun for the pods of a run.
func RunIndexValue(namespace, run string) string { return namespace + "/" + run }

func keyOf(p *core.Pod) store.Key {
	return store.Key{Kind: KindName, Namespace: p.Namespace, Name: p.Name}
}

// title is how messages name a pod.
func title(p *core.Pod) string { return p.Namespace + "/" + p.Name }
