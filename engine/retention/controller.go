package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// Names under which the store keeps what this engine reads, and their indexes.
// Engines know each other through objects alone, so they are written here and
// not imported; see engine/pipeline and engine/pod.
const (
	runsKind      = "runs.skiff.dev"
	tasksKind     = "tasks.skiff.dev"
	artifactsKind = "artifacts.skiff.dev"
	settingsKind  = "configmaps"

	byRun      = "run"
	byActive   = "active"
	byCreation = "created"
	byPin      = "pinned"
	byUse      = "living"
	byContents = "contents"
	byPurging  = "purging"
)

// DefaultInterval is how often the bounds are looked at: what is over them for
// that long harms nobody, and a look reads every artifact where bytes are bounded.
const DefaultInterval = 10 * time.Minute

// Contents removes what skiff made. Its errors may be s3.ErrAway, s3.ErrDenied and
// s3.ErrSettings.
type Contents interface {
	// Purge removes what is at a URI on this machine and, where skiff uploaded it to
	// an object store, what skiff uploaded there. Nothing there is no error, and
	// calling it again goes on with what is left.
	Purge(ctx context.Context, namespace, uri, endpoint string) error
}

// Config is what a Controller needs. Store, Contents and Using are required.
type Config struct {
	Store    store.Interface
	Contents Contents
	// Using reports whether an engine that is at work refers to an artifact
	// without the store's saying so yet.
	Using func(*skiff.Artifact) bool
	// Retention bounds every namespace that has no bounds of its own.
	Retention skiff.Retention
	// Interval replaces DefaultInterval.
	Interval time.Duration
	Logger   *slog.Logger
	// Now replaces time.Now in tests.
	Now func() time.Time
}

// Controller keeps the bounds. Make one with New and drive it with Run.
type Controller struct {
	cfg   Config
	store store.Interface
	log   *slog.Logger
	now   func() time.Time
	// mu is held by the one who removes.
	mu sync.Mutex
}

// New returns a controller that does nothing until Run or Purge.
func New(cfg Config) (*Controller, error) {
	if cfg.Store == nil || cfg.Contents == nil || cfg.Using == nil {
		return nil, errors.New("retention: Store, Contents and Using are required")
	}
	c := &Controller{cfg: cfg, store: cfg.Store, log: cfg.Logger, now: cfg.Now}
	if c.cfg.Interval <= 0 {
		c.cfg.Interval = DefaultInterval
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

// Run goes on with what was begun, keeps the bounds at intervals, and removes the
// contents of artifacts as they are deleted, until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	due := time.Now() // the first look is at once
	for {
		err := c.follow(ctx, &due)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, store.ErrGone):
			due = time.Now() // what was missed is in the store
		case err != nil:
			return fmt.Errorf("keep to the retention: %w", err)
		}
	}
}

// follow watches for deleted artifacts, and looks at everything when it is due.
func (c *Controller) follow(ctx context.Context, due *time.Time) error {
	watcher, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{artifactsKind}})
	if err != nil {
		return err
	}
	defer watcher.Close()
	for {
		if !time.Now().Before(*due) {
			*due = time.Now().Add(c.cfg.Interval)
			if err := c.all(ctx); err != nil {
				c.log.Warn("the retention could not be kept; it is tried again", "in", c.cfg.Interval, "error", err)
			}
		}
		waiting, cancel := context.WithDeadline(ctx, *due)
		events, err := watcher.Next(waiting)
		cancel()
		if err != nil && (ctx.Err() != nil || waiting.Err() == nil) {
			return err
		}
		for _, e := range events {
			if e.Type != store.Deleted && e.Object.Metadata().DeletionTimestamp != nil {
				if err := c.Finish(ctx); err != nil {
					c.log.Warn("contents of deleted artifacts are not gone; it is tried again", "in", c.cfg.Interval, "error", err)
				}
				break
			}
		}
	}
}

// all keeps the bounds of every namespace.
func (c *Controller) all(ctx context.Context) error {
	if err := c.Finish(ctx); err != nil {
		return err
	}
	namespaces, err := c.store.Namespaces(ctx, artifactsKind)
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		retention, err := c.Retention(ctx, namespace)
		if err != nil {
			c.log.Warn("a namespace's retention is not kept", "namespace", namespace, "error", err)
			continue
		}
		report, err := c.Purge(ctx, namespace, retention, false)
		if err != nil {
			return err
		}
		if report.Artifacts > 0 {
			c.log.Info("artifacts were purged", "namespace", namespace, "retention", report.Retention,
				"artifacts", report.Artifacts, "bytes", report.Bytes, "pinned", report.Pinned, "in_use", report.InUse)
		}
	}
	return nil
}

// Retention is what bounds a namespace: the daemon's, with what the namespace's
// own ConfigMap replaces of it.
func (c *Controller) Retention(ctx context.Context, namespace string) (skiff.Retention, error) {
	retention := c.cfg.Retention
	settings, err := store.GetAs[*core.ConfigMap](ctx, c.store, store.Key{Kind: settingsKind, Namespace: namespace, Name: skiff.RetentionConfigMap})
	if errors.Is(err, store.ErrNotFound) {
		return retention, nil
	}
	if err != nil {
		return retention, fmt.Errorf("read config map %s: %w", skiff.RetentionConfigMap, err)
	}
	for name, value := range settings.Data {
		if err := retention.Set(name, value); err != nil {
			return retention, fmt.Errorf("config map %s: %w", skiff.RetentionConfigMap, err)
		}
	}
	return retention, nil
}

// Purge keeps a namespace to a retention. With dryRun it only says what would go.
// It returns after everything that can go is gone, or ctx has ended.
func (c *Controller) Purge(ctx context.Context, namespace string, retention skiff.Retention, dryRun bool) (*skiff.PurgeReport, error) {
	report := &skiff.PurgeReport{Namespace: namespace, Retention: retention.String(), DryRun: dryRun, Items: []skiff.PurgeItem{}}
	if retention == (skiff.Retention{}) {
		return report, (&pass{c: c, namespace: namespace}).countStuck(ctx, report)
	}
	if !dryRun {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	p, err := c.newPass(ctx, namespace, retention)
	if err == nil {
		err = p.run(ctx, report)
	}
	if err == nil {
		err = p.countStuck(ctx, report)
	}
	if err != nil {
		return report, fmt.Errorf("purge artifacts of namespace %s: %w", namespace, err)
	}
	return report, nil
}
