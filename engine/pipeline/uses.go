package pipeline

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// uses are the artifacts that active executions refer to. An execution counts an
// artifact in before it looks at whether that can still be had; who gives contents
// up says so in the store before it looks here. So one of the two sees the other.
type uses struct {
	mu    sync.Mutex
	names map[string]int // by namespace/name
	keys  map[string]int // by namespace/place of the contents
}

func (u *uses) count(names, keys []string, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for m, list := range map[*map[string]int][]string{&u.names: names, &u.keys: keys} {
		if *m == nil {
			*m = map[string]int{}
		}
		for _, one := range list {
			if (*m)[one] += n; (*m)[one] == 0 {
				delete(*m, one)
			}
		}
	}
}

// Using reports whether an active run refers to an artifact, by its name or by
// what lies at its URI, in it or around it.
func (c *Controller) Using(a *skiff.Artifact) bool {
	c.uses.mu.Lock()
	defer c.uses.mu.Unlock()
	if c.uses.names[a.Namespace+"/"+a.Name] > 0 {
		return true
	}
	key, err := artifact.Key(a.Spec.URI)
	if err != nil {
		return false
	}
	key = a.Namespace + "/" + key
	for held := range c.uses.keys {
		if held == key || strings.HasPrefix(held, key+"/") || strings.HasPrefix(key, held+"/") {
			return true
		}
	}
	return false
}

// hold counts an artifact in until the execution's end, by what is known of it.
func (x *execution) hold(name, uri string) {
	var names, keys []string
	if name != "" {
		names = []string{x.run.Namespace + "/" + name}
	}
	if key, err := artifact.Key(uri); err == nil {
		keys = []string{x.run.Namespace + "/" + key}
	}
	x.c.uses.count(names, keys, 1)
	x.heldNames, x.heldKeys = append(x.heldNames, names...), append(x.heldKeys, keys...)
}

// release counts out what the execution held.
func (x *execution) release() {
	x.c.uses.count(x.heldNames, x.heldKeys, -1)
	x.heldNames, x.heldKeys = nil, nil
}

// take puts an artifact among those of the run.
func (x *execution) take(a *skiff.Artifact) {
	x.hold(a.Name, a.Spec.URI)
	x.artifacts[a.Name] = a
}

// lost reports whether a stored task has results that cannot be had any more.
func (x *execution) lost(task *skiff.Task) bool {
	for _, names := range task.Status.OutputArtifacts {
		for _, name := range names {
			if a := x.artifacts[name]; a == nil || (a.Gone() != "" && !a.Spec.Imported) {
				return true
			}
		}
	}
	return false
}

// usedEach is to what an artifact's last use is kept: it decides over weeks, and
// every note is a write.
const usedEach = time.Hour

// usedLater notes, behind the steps' backs, that another run took artifacts for
// its own. A note that gets lost makes them no younger than they were.
func (c *Controller) usedLater(run string, list []*skiff.Artifact) {
	for _, a := range list {
		if a.Spec.Run == run || c.now().Sub(a.LastUsed()) < usedEach && !a.Status.UsedAt.IsZero() {
			continue
		}
		select {
		case c.hasher <- hashJob{namespace: a.Namespace, name: a.Name, used: true}:
		default:
			return
		}
	}
}

// usedByImport notes that the artifact was used whose contents an import refers to.
func (x *execution) usedByImport(ctx context.Context, a *skiff.Artifact) {
	key, err := artifact.Key(a.Spec.URI)
	if err != nil {
		return
	}
	made, _, err := store.ListAs[*skiff.Artifact](ctx, x.c.store, store.ListOptions{
		Kind: Artifacts, Namespace: x.run.Namespace, Index: IndexContents, Prefix: key, Exact: true, Limit: 10,
		Filter: func(obj core.Object) bool {
			return !obj.(*skiff.Artifact).Spec.Imported && obj.(*skiff.Artifact).Gone() == ""
		},
	})
	if err == nil {
		x.c.usedLater(x.run.Name, made)
	}
}

func (c *Controller) noteUse(ctx context.Context, job hashJob) error {
	_, err := store.Modify(ctx, c.store, store.Key{Kind: Artifacts, Namespace: job.namespace, Name: job.name}, func(obj core.Object) error {
		a := obj.(*skiff.Artifact)
		if a.Gone() != "" {
			return store.ErrUnchanged
		}
		a.Status.UsedAt = c.now()
		return nil
	})
	return err
}
