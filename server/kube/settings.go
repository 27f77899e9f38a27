package kube

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// secrets are served as published: whoever may get, list or watch them gets the
// values; tables, which are made to be looked at, hold none.
func secrets() Resource {
	secret := func(f func(*core.Secret) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*core.Secret)) }
	}
	return Resource{
		Version: "v1", Plural: "secrets", Singular: "secret", Kind: core.SecretKind,
		StoreKind: "secrets", New: func() core.Object { return &core.Secret{} },
		Fields: map[string]Field{"type": {Value: func(o core.Object) string { return o.(*core.Secret).SecretType }}},
		Columns: []Column{
			nameColumn(),
			{Name: "Type", Type: "string", Value: secret(func(s *core.Secret) any { return s.SecretType })},
			{Name: "Data", Type: "integer", Description: "how many keys there are", Value: secret(func(s *core.Secret) any { return len(s.Data) })},
			{Name: "Keys", Type: "string", Value: secret(func(s *core.Secret) any { return keyList(s.Data) })},
			ageColumn(),
		},
		Create: func(o core.Object) error {
			s := o.(*core.Secret)
			s.Default()
			return s.Validate()
		},
		Patch: func(before, after core.Object) error {
			next := after.(*core.Secret)
			next.Default()
			return before.(*core.Secret).ValidateUpdate(next)
		},
		Replaceable: true,
		Removable:   func(core.Object) error { return nil },
		Shown:       func(o core.Object) core.Object { return o.(*core.Secret).Redacted() },
	}
}

func configMaps() Resource {
	config := func(f func(*core.ConfigMap) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*core.ConfigMap)) }
	}
	return Resource{
		Version: "v1", Plural: "configmaps", Singular: "configmap", Kind: core.ConfigMapKind, ShortNames: []string{"cm"},
		StoreKind: "configmaps", New: func() core.Object { return &core.ConfigMap{} },
		Columns: []Column{
			nameColumn(),
			{Name: "Data", Type: "integer", Description: "how many keys there are",
				Value: config(func(c *core.ConfigMap) any { return len(c.Data) + len(c.BinaryData) })},
			{Name: "Keys", Type: "string", Value: config(func(c *core.ConfigMap) any {
				return strings.Trim(keyList(c.Data)+","+keyList(c.BinaryData), ",")
			})},
			ageColumn(),
		},
		Create: func(o core.Object) error { return o.(*core.ConfigMap).Validate() },
		Patch: func(before, after core.Object) error {
			return before.(*core.ConfigMap).ValidateUpdate(after.(*core.ConfigMap))
		},
		Replaceable: true,
		Removable:   func(core.Object) error { return nil },
	}
}

// claims are volumes that outlive pods. An object that is deleted stays until
// nothing mounts its volume and that is gone.
func claims() Resource {
	claim := func(f func(*core.PersistentVolumeClaim) any) func(core.Object, time.Time) any {
		return func(o core.Object, _ time.Time) any { return f(o.(*core.PersistentVolumeClaim)) }
	}
	return Resource{
		Version: "v1", Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim", Kind: core.PersistentVolumeClaimKind,
		ShortNames: []string{"pvc"}, StoreKind: "persistentvolumeclaims",
		New: func() core.Object { return &core.PersistentVolumeClaim{} },
		Columns: []Column{
			nameColumn(),
			{Name: "Status", Type: "string", Value: claim(func(c *core.PersistentVolumeClaim) any {
				if c.DeletionTimestamp != nil {
					return "Terminating"
				}
				return c.Status.Phase
			})},
			{Name: "Capacity", Type: "string", Value: claim(func(c *core.PersistentVolumeClaim) any {
				size := c.Spec.Resources.Requests[core.ResourceStorage]
				return size.String()
			})},
			{Name: "Access Modes", Type: "string", Value: claim(func(c *core.PersistentVolumeClaim) any { return strings.Join(c.Spec.AccessModes, ",") })},
			ageColumn(),
		},
		Create: func(o core.Object) error {
			c := o.(*core.PersistentVolumeClaim)
			c.Default()
			return c.Validate()
		},
		Removable: claimRemovable,
	}
}

// claimRemovable: a claim that is part of a run goes with that, and not under it.
func claimRemovable(o core.Object) error {
	c := o.(*core.PersistentVolumeClaim)
	for _, owner := range c.OwnerReferences {
		return &Error{Code: http.StatusConflict, Reason: "Conflict",
			Message: fmt.Sprintf("claim %s is the workspace of run %s and goes with it (skiff delete run %s)", c.Name, owner.Name, owner.Name)}
	}
	return nil
}

func keyList[V any](data map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(data)), ",")
}
