package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/store"
)

// idleGrace leaves a client that has just started the daemon the time to hand
// its run in, and one that watched a run the time to read the result.
const idleGrace = 10 * time.Second

// endWhenIdle returns errIdle once no run has been active for a while, and none is
// to come by a schedule.
func (d *daemon) endWhenIdle(ctx context.Context) error {
	for {
		err := d.awaitIdle(ctx)
		if !errors.Is(err, store.ErrGone) {
			return err
		}
	}
}

func (d *daemon) awaitIdle(ctx context.Context) error {
	watcher, err := d.store.Watch(ctx, store.WatchOptions{Kinds: []string{pipeline.Runs, recurring.KindName}})
	if err != nil {
		return fmt.Errorf("watch for idleness: %w", err)
	}
	defer watcher.Close()
	for {
		active, err := d.activeRuns(ctx)
		if err == nil && !active {
			active, err = d.awaited(ctx)
		}
		if err != nil {
			return err
		}
		waitCtx, cancel := ctx, func() {}
		if !active {
			waitCtx, cancel = context.WithTimeoutCause(ctx, idleGrace, errIdle)
		}
		_, err = watcher.Next(waitCtx)
		cancel()
		if err != nil {
			return err
		}
	}
}

// awaited reports whether a schedule has a time to come.
func (d *daemon) awaited(ctx context.Context) (bool, error) {
	page, err := d.store.List(ctx, store.ListOptions{Kind: recurring.KindName, Index: recurring.IndexEnabled, Limit: 1, Filter: func(obj core.Object) bool {
		return !obj.(*skiff.RecurringRun).Next().IsZero()
	}})
	if err != nil {
		return false, fmt.Errorf("look for schedules: %w", err)
	}
	return len(page.Items) > 0, nil
}

func (d *daemon) activeRuns(ctx context.Context) (bool, error) {
	page, err := d.store.List(ctx, store.ListOptions{Kind: pipeline.Runs, Index: pipeline.IndexActive, Limit: 1})
	if err != nil {
		return false, fmt.Errorf("look for active runs: %w", err)
	}
	return len(page.Items) > 0, nil
}
