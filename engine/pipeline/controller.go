package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// DefaultPipelineRoot is where artifacts go unless the run or its manifest says
// otherwise: KFP's own default, so that components see the paths they know.
const DefaultPipelineRoot = "minio://mlpipeline/v2/artifacts"

// ArtifactRepository is what the engine needs of the artifact store.
type ArtifactRepository interface {
	Locate(namespace, uri string) (artifact.Location, error)
	MountRoots(namespace string) ([]artifact.MountRoot, error)
	PrepareOutput(namespace, uri string) error
	// Commit makes contents immutable.
	Commit(ctx context.Context, namespace, uri string) (artifact.Info, error)
	// Digest hashes contents.
	Digest(ctx context.Context, namespace, uri string) (artifact.Digest, error)
	Exists(namespace, uri string) bool
	// Open and List read contents.
	artifact.Source
	// Fetch makes contents be here that are kept elsewhere. It comes before every
	// read of what another may have made or keeps; what is here costs a look.
	Fetch(ctx context.Context, namespace, uri string) error
}

// Images tells which image a reference is.
type Images interface {
	PrepareImage(ctx context.Context, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error)
}

// Volumes makes the folders behind claims.
type Volumes interface {
	// EnsureVolume makes the folder where it is not there, and returns its path
	// on the host.
	EnsureVolume(ctx context.Context, namespace, name string) (hostPath string, err error)
}

// Fit says whether the node could ever run a pod; the error says in numbers why
// not.
type Fit func(pod *core.Pod) error

// Config is what a Controller is made of. Store, Artifacts, Images, Volumes and
// Fit are required.
type Config struct {
	Store     store.Interface
	Artifacts ArtifactRepository
	Images    Images
	Volumes   Volumes
	Fit       Fit
	Logger    *slog.Logger
	// Limits bound what a package may hold; zero fields mean the defaults.
	Limits kfp.Limits
	// PipelineRoot replaces DefaultPipelineRoot.
	PipelineRoot string
	// Stores keep artifacts elsewhere; nil where this machine has them all.
	Stores ObjectStores
	// StorePatience replaces DefaultStorePatience, StorePause the first pause
	// between tries.
	StorePatience, StorePause time.Duration
	// Fake marks runs as executed on a declared node.
	Fake bool
	// Warm makes the pods of steps before their inputs exist, so that engine/pod
	// can have their containers wait.
	Warm bool
	// CacheExpiry is how old an earlier result may be to be taken; 0 for any age.
	CacheExpiry time.Duration
	// Now replaces time.Now in tests.
	Now func() time.Time
}

// Controller runs pipelines. Make one with New and drive it with Run.
type Controller struct {
	store       store.Interface
	artifacts   ArtifactRepository
	images      Images
	volumes     Volumes
	fit         Fit
	log         *slog.Logger
	limits      kfp.Limits
	defaultRoot string
	fake, warm  bool
	cacheExpiry time.Duration
	now         func() time.Time

	stores               ObjectStores
	patience, storePause time.Duration

	// work holds everything that executions have done outside of themselves.
	work   *errgroup.Group
	hasher chan hashJob
	uses   uses
	// copying has a place for each copy into a workspace that may be under way.
	copying chan struct{}

	mu     sync.Mutex
	active map[string]*execution // by namespace/name
	// manifests keeps the manifests of active runs decoded.
	manifests manifestCache
}

// New returns a controller that does nothing until Run.
func New(cfg Config) (*Controller, error) {
	if cfg.Store == nil || cfg.Artifacts == nil || cfg.Images == nil || cfg.Volumes == nil || cfg.Fit == nil {
		return nil, errors.New("pipeline: Store, Artifacts, Images, Volumes and Fit are required")
	}
	c := &Controller{
		store: cfg.Store, artifacts: cfg.Artifacts, images: cfg.Images, volumes: cfg.Volumes, fit: cfg.Fit, log: cfg.Logger,
		limits: cfg.Limits.WithDefaults(), defaultRoot: cfg.PipelineRoot, fake: cfg.Fake, warm: cfg.Warm, now: cfg.Now, cacheExpiry: cfg.CacheExpiry,
		stores: cfg.Stores, patience: cfg.StorePatience, storePause: cfg.StorePause,
		active: map[string]*execution{}, work: new(errgroup.Group),
		hasher: make(chan hashJob, 1024), copying: make(chan struct{}, maxCopies),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.defaultRoot == "" {
		c.defaultRoot = DefaultPipelineRoot
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.patience <= 0 {
		c.patience = DefaultStorePatience
	}
	if c.storePause <= 0 {
		c.storePause = firstPause
	}
	return c, nil
}

// Run takes up every run that has not ended, follows the store for new ones,
// and blocks until ctx ends. Runs that are active then go on when a controller
// is run on the same store again.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.hash(ctx) })
	group.Go(func() error { return c.follow(ctx, group) })
	err := group.Wait()
	// Work outside ends with ctx; nothing of it outlives Run.
	return errors.Join(err, c.work.Wait())
}

// follow hands every change of runs and pods to the execution concerned.
func (c *Controller) follow(ctx context.Context, group *errgroup.Group) error {
	for {
		err := c.followOnce(ctx, group)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, store.ErrGone) {
			return fmt.Errorf("follow runs: %w", err)
		}
		c.log.Warn("fell behind the store's change log, listing again")
	}
}

func (c *Controller) followOnce(ctx context.Context, group *errgroup.Group) error {
	revision, err := c.takeUp(ctx, group)
	if err != nil {
		return err
	}
	watcher, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{Runs, podsKind}, From: revision})
	if err != nil {
		return err
	}
	defer watcher.Close()
	for {
		events, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := c.dispatch(ctx, group, e); err != nil {
				return err
			}
		}
	}
}

// takeUp begins an execution for every active run, and tells those that have
// one already to look at their pods again.
func (c *Controller) takeUp(ctx context.Context, group *errgroup.Group) (uint64, error) {
	first := uint64(0)
	opts := store.ListOptions{Kind: Runs, Index: IndexActive, Prefix: "active"}
	for {
		page, err := c.store.List(ctx, opts)
		if err != nil {
			return 0, fmt.Errorf("list active runs: %w", err)
		}
		if first == 0 {
			first = page.Revision
		}
		for _, obj := range page.Items {
			run := obj.(*skiff.Run)
			if x := c.execution(run.Namespace, run.Name); x != nil && x.retries == run.Spec.Retries {
				x.events.post(event{resync: true})
				continue
			}
			c.begin(ctx, group, run)
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return first, nil
		}
	}
}

func (c *Controller) dispatch(ctx context.Context, group *errgroup.Group, e store.Event) error {
	switch obj := e.Object.(type) {
	case *skiff.Run:
		x := c.execution(obj.Namespace, obj.Name)
		switch {
		case e.Type == store.Deleted && x != nil:
			x.stop(errRunDeleted)
		case e.Type == store.Deleted || obj.Status.State.Terminal():
		case x == nil || obj.Spec.Retries > x.retries:
			return c.beginNow(ctx, group, obj)
		case obj.Spec.Cancel && obj.Spec.Retries == x.retries:
			x.events.post(event{cancel: true})
		}
	case *core.Pod:
		if x := c.execution(obj.Namespace, obj.Labels[core.LabelRun]); x != nil {
			x.events.post(event{pod: obj, gone: e.Type == store.Deleted})
		}
	}
	return nil
}

// beginNow starts the execution of a run that an event told of. The event may be
// of the past: a run that has ended meanwhile must not be begun from it, so what
// counts is the run as it is now.
func (c *Controller) beginNow(ctx context.Context, group *errgroup.Group, told *skiff.Run) error {
	obj, err := c.store.Get(ctx, store.Key{Kind: Runs, Namespace: told.Namespace, Name: told.Name})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read run %s: %w", told.Name, err)
	}
	if run := obj.(*skiff.Run); !run.Status.State.Terminal() {
		c.begin(ctx, group, run)
	}
	return nil
}

var errRunDeleted = errors.New("the run was deleted")

func (c *Controller) execution(namespace, name string) *execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active[namespace+"/"+name]
}

// begin starts the execution of a run on a goroutine of group. A run has one at
// a time: where there is one of before a retry, it is begun when that has gone.
func (c *Controller) begin(ctx context.Context, group *errgroup.Group, run *skiff.Run) {
	parent := ctx
	ctx, stop := context.WithCancelCause(ctx)
	x := &execution{
		c: c, log: c.log.With("run", run.Name), events: newMailbox(), stop: stop, done: make(chan struct{}), run: run,
		retries:   run.Spec.Retries,
		artifacts: map[string]*skiff.Artifact{}, byPod: map[string]*node{}, timers: map[*node]*time.Timer{},
		downloads: map[string][]func(){}, downloaded: map[string]bool{},
	}
	key := run.Namespace + "/" + run.Name
	c.mu.Lock()
	other := c.active[key]
	switch {
	case other == nil:
		c.active[key] = x
	case other.retries < x.retries:
		// It lingers after the end of a run that was retried since.
		other.followed = true
	}
	c.mu.Unlock()
	if other != nil {
		stop(nil)
		return
	}
	group.Go(func() error {
		defer stop(nil)
		defer x.release()
		err := x.load(ctx)
		if err == nil {
			err = x.Run(ctx)
		} else if ctx.Err() == nil {
			// A run that cannot be understood any more is failed, not lost.
			x.endRun(skiff.StateFailed, reasonInternalFault, err.Error())
			err = x.flush(ctx)
		}
		c.mu.Lock()
		delete(c.active, key)
		followed := x.followed
		c.mu.Unlock()
		close(x.done)
		if followed || errors.Is(err, errRetried) {
			return c.beginNow(parent, group, run)
		}
		if err != nil && ctx.Err() == nil {
			c.log.Error("run is no longer followed", "run", run.Name, "error", err)
		} else if err == nil {
			c.log.Info("run finished", "run", run.Name, "state", x.run.Status.State, "took", x.run.Status.FinishedAt.Sub(x.run.Status.StartedAt))
		}
		return nil
	})
}

// sleep waits for d or the end of ctx.
func (c *Controller) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
