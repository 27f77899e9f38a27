package pipeline

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// hashJob asks for an artifact's content hash to be computed and recorded or, with
// used, for its use to be noted.
type hashJob struct {
	namespace, name, uri string
	used                 bool
}

// hashWorkers is how many artifacts are hashed at once: hashing is bound by the
// disk, and the steps come first.
const hashWorkers = 2

// freeze makes the contents of artifacts immutable and measures them. An
// artifact that was declared and not written is no failure, as on the cluster:
// it is marked as missing.
func (c *Controller) freeze(ctx context.Context, namespace string, made map[string][]*skiff.Artifact) error {
	for _, output := range sortedKeys(made) {
		for _, a := range made[output] {
			if at, err := c.artifacts.Locate(namespace, a.Spec.URI); err != nil || at.Web() {
				// The component named a place of its own choosing; it is kept as
				// a reference, like an import.
				a.Spec.Imported = true
				continue
			}
			info, err := c.artifacts.Commit(ctx, namespace, a.Spec.URI)
			if err != nil {
				return fmt.Errorf("output artifact %q: %w", output, err)
			}
			a.Status.Missing = !info.Exists
			a.Status.Size, a.Status.Files = info.Size, info.Files
		}
	}
	return nil
}

// hash computes content hashes behind the steps' backs until ctx ends. A hash
// that was not recorded in time is computed again when a cache look-up asks.
func (c *Controller) hash(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range hashWorkers {
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case job := <-c.hasher:
					if err := c.hashOne(ctx, job); err != nil && ctx.Err() == nil {
						c.log.Warn("artifact is not hashed, or its use not noted", "artifact", job.name, "error", err)
					}
				}
			}
		})
	}
	return group.Wait()
}

func (c *Controller) hashOne(ctx context.Context, job hashJob) error {
	if job.used {
		if err := c.noteUse(ctx, job); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	}
	digest, err := c.artifacts.Digest(ctx, job.namespace, job.uri)
	if err != nil {
		return err
	}
	_, err = store.Modify(ctx, c.store, store.Key{Kind: Artifacts, Namespace: job.namespace, Name: job.name}, func(obj core.Object) error {
		obj.(*skiff.Artifact).Status.Digest = digest.Digest
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil // deleted meanwhile
	}
	return err
}

// hashLater queues artifacts that were just written. A full queue is no loss:
// see hash.
func (c *Controller) hashLater(list []*skiff.Artifact) {
	for _, a := range list {
		if a.Status.Missing || a.Spec.Imported || a.Status.Digest != "" {
			continue
		}
		select {
		case c.hasher <- hashJob{namespace: a.Namespace, name: a.Name, uri: a.Spec.URI}:
		default:
			return
		}
	}
}
