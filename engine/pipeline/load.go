package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// load reads what the store knows of a run: its manifest, its tasks and its
// artifacts.
func (x *execution) load(ctx context.Context) error {
	pkg, err := x.c.manifest(ctx, x.run.Namespace, x.run.Spec.Manifest)
	if err != nil {
		return err
	}
	x.ir, x.plat = pkg.Spec, pkg.Platform
	if x.origin, err = x.c.origin(ctx, x.run); err != nil {
		return err
	}
	if err := x.ensureWorkspace(ctx); err != nil {
		return err
	}
	x.stored = map[string]*skiff.Task{}
	err = x.c.each(ctx, store.ListOptions{Kind: Tasks, Namespace: x.run.Namespace, Index: IndexRun, Prefix: x.run.Name, Exact: true}, func(task *skiff.Task) {
		x.stored[task.Name] = task
	})
	if err != nil {
		return fmt.Errorf("read the tasks of run %s: %w", x.run.Name, err)
	}
	if len(x.stored) > 0 {
		if err := x.loadGated(ctx); err != nil {
			return err
		}
	}
	for _, task := range x.stored {
		for _, names := range task.Status.OutputArtifacts {
			for _, name := range names {
				a, err := x.artifact(ctx, name)
				if errors.Is(err, store.ErrNotFound) {
					continue // of another run that was deleted; see lost
				}
				if err != nil {
					return err
				}
				if a.Spec.Workspace && task.Spec.Type == skiff.TaskImporter {
					if key, err := workspaceKey(a.Spec.URI); err == nil {
						x.downloaded[key] = true
					}
				}
			}
		}
	}
	return nil
}

// each calls fn for every task of a list, page by page.
func (c *Controller) each(ctx context.Context, opts store.ListOptions, fn func(*skiff.Task)) error {
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return err
		}
		for _, obj := range page.Items {
			fn(obj.(*skiff.Task))
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return nil
		}
	}
}

// manifestCache keeps recently used manifests decoded: a thousand runs of one
// pipeline share one. They are read-only.
type manifestCache struct {
	mu    sync.Mutex
	order []string
	byKey map[string]*kfp.Package
}

// manifestsKept bounds the cache; a decoded manifest takes about 100 kB.
const manifestsKept = 64

func (m *manifestCache) get(key string) *kfp.Package {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byKey[key]
}

func (m *manifestCache) put(key string, pkg *kfp.Package) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil {
		m.byKey = map[string]*kfp.Package{}
	}
	if m.byKey[key] == nil {
		m.order = append(m.order, key)
	}
	m.byKey[key] = pkg
	if len(m.order) > manifestsKept {
		delete(m.byKey, m.order[0])
		m.order = m.order[1:]
	}
}

// manifest reads a stored manifest.
func (c *Controller) manifest(ctx context.Context, namespace, name string) (*kfp.Package, error) {
	key := namespace + "/" + name
	if pkg := c.manifests.get(key); pkg != nil {
		return pkg, nil
	}
	obj, err := c.store.Get(ctx, store.Key{Kind: Manifests, Namespace: namespace, Name: name})
	if err != nil {
		return nil, fmt.Errorf("read pipeline manifest %s: %w", name, err)
	}
	m := obj.(*skiff.PipelineManifest)
	pkg, err := kfp.Decode(m.PipelineSpec, m.PlatformSpec)
	if err != nil {
		return nil, fmt.Errorf("read pipeline manifest %s: %w", name, err)
	}
	c.manifests.put(key, pkg)
	return pkg, nil
}

// deadline is when the run as a whole must have ended; zero for none.
func (x *execution) deadline() time.Time {
	from := x.run.CreationTimestamp
	if retried := x.run.Status.RetriedAt; !retried.IsZero() {
		from = retried
	}
	if seconds := x.plat.ActiveDeadlineSeconds(); seconds > 0 && !from.IsZero() {
		return from.Add(time.Duration(seconds) * time.Second)
	}
	return time.Time{}
}
