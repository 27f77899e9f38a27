package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

// claimFolder is the folder on the host behind a claim; its errors are shown to
// the user.
func (r *run) claimFolder(ctx context.Context, claim *core.PersistentVolumeClaimVolume) (string, error) {
	namespace := r.pod().Namespace
	found, err := store.GetAs[*core.PersistentVolumeClaim](ctx, r.c.store, store.Key{Kind: Claims, Namespace: namespace, Name: claim.ClaimName})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", fmt.Errorf("claim %q is not in namespace %s; make it first, with a task of the pipeline (kubernetes.CreatePVC) or by the API", claim.ClaimName, namespace)
	case err != nil:
		return "", fmt.Errorf("read claim %s: %w", claim.ClaimName, err)
	case found.DeletionTimestamp != nil:
		return "", fmt.Errorf("claim %q is being deleted", claim.ClaimName)
	}
	return r.c.backend.EnsureVolume(ctx, namespace, found.VolumeID())
}

// tendClaims removes the volumes of claims that are to go, once nothing mounts
// them, until ctx ends.
func (c *Controller) tendClaims(ctx context.Context) error {
	for {
		err := c.followClaims(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, store.ErrGone):
			return err
		}
	}
}

// followClaims lists and watches claims, and pods where a claim waits for one.
func (c *Controller) followClaims(ctx context.Context) error {
	waiting := map[store.Key]bool{}
	opts := store.ListOptions{Kind: Claims, Index: IndexDeleted, Prefix: deleted, Exact: true}
	var revision uint64
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return fmt.Errorf("list claims: %w", err)
		}
		if revision == 0 {
			revision = page.Revision
		}
		for _, obj := range page.Items {
			waiting[claimKey(obj)] = true
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			break
		}
	}
	watcher, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{Claims, KindName}, From: revision})
	if err != nil {
		return fmt.Errorf("watch claims: %w", err)
	}
	defer watcher.Close()
	for {
		for key := range waiting {
			if c.removeClaim(ctx, key) {
				delete(waiting, key)
			}
		}
		events, err := c.claimEvents(ctx, watcher, len(waiting) > 0)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Key.Kind == Claims && e.Object.Metadata().DeletionTimestamp != nil && e.Type != store.Deleted {
				waiting[e.Key] = true
			}
		}
	}
}

// claimEvents waits for changes, where a removal failed not for ever.
func (c *Controller) claimEvents(ctx context.Context, watcher store.Watcher, waiting bool) ([]store.Event, error) {
	if !waiting {
		return watcher.Next(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, claimRetry)
	defer cancel()
	events, err := watcher.Next(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return nil, nil
	}
	return events, err
}

// claimRetry is when a volume that could not be removed is tried again, where
// nothing else happens before.
const claimRetry = 30 * time.Second

func claimKey(obj core.Object) store.Key {
	m := obj.Metadata()
	return store.Key{Kind: Claims, Namespace: m.Namespace, Name: m.Name}
}

// removeClaim removes a claim's volume and lets the object go; false where a pod
// still mounts it, or it did not work.
func (c *Controller) removeClaim(ctx context.Context, key store.Key) bool {
	claim, err := store.GetAs[*core.PersistentVolumeClaim](ctx, c.store, key)
	if errors.Is(err, store.ErrNotFound) {
		return true
	}
	if err != nil {
		return false
	}
	mounted, err := c.mounted(ctx, key)
	if err != nil || mounted {
		return false
	}
	if err := c.backend.RemoveVolume(ctx, key.Namespace, claim.VolumeID()); err != nil {
		c.log.Warn("volume of a deleted claim is not gone; it is tried again", "claim", key.Namespace+"/"+key.Name, "error", err)
		return false
	}
	_, err = store.ModifyAs(ctx, c.store, key, func(claim *core.PersistentVolumeClaim) error {
		kept := claim.Finalizers[:0]
		for _, f := range claim.Finalizers {
			if f != core.FinalizerVolume {
				kept = append(kept, f)
			}
		}
		claim.Finalizers = kept
		return nil
	})
	return err == nil || errors.Is(err, store.ErrNotFound)
}

// mounted reports whether a pod mounts the claim that has not ended, or that is
// being deleted: of the latter a container may still be there.
func (c *Controller) mounted(ctx context.Context, key store.Key) (bool, error) {
	opts := store.ListOptions{Kind: KindName, Namespace: key.Namespace, Index: IndexActive, Prefix: active, Exact: true}
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return false, err
		}
		for _, obj := range page.Items {
			p := obj.(*core.Pod)
			for i := range p.Spec.Volumes {
				v := p.Spec.Volumes[i].PersistentVolumeClaim
				if v != nil && v.ClaimName == key.Name {
					return true, nil
				}
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return false, nil
		}
	}
}
