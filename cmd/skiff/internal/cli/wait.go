package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// progress is what is known of a run while it goes on.
type progress struct {
	run   skiff.Run
	tasks map[string]*skiff.Task
	pods  map[string]*core.Pod
}

// renderer shows a run's progress to a person.
type renderer interface {
	// update is called after every change and, where tick says so, regularly.
	update(p *progress, now time.Time)
	// tick is how often update is wanted without a change; 0 means never.
	tick() time.Duration
	// finish is called once, after the last update.
	finish()
}

// waiter waits for one run, through lost connections and the user's signals.
type waiter struct {
	app       *app
	session   *session
	namespace string
	run       string
	show      renderer

	progress progress
	signals  chan os.Signal
	// interrupted is true once the user asked for the run's end.
	interrupted bool
	// untold are tasks that came to be paused; paused are the pods of which it was
	// told that they are.
	untold []*skiff.Task
	paused map[string]bool
}

// wait returns the run's document when the run has ended. An interrupt cancels
// the run and goes on waiting; another leaves.
func (w *waiter) wait(ctx context.Context) (*view.Run, error) {
	w.signals = make(chan os.Signal, 2)
	signal.Notify(w.signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(w.signals)
	for {
		err := w.watch(ctx)
		if errors.Is(err, errLeft) {
			w.show.finish()
			w.app.notef("skiff: left run %s; it is being cancelled", w.run)
			return nil, &exitError{code: exitCancelled}
		}
		var document *view.Run
		if err == nil {
			document, err = w.session.client.Run(ctx, w.namespace, w.run)
		}
		if err == nil {
			w.settle(document)
			w.show.update(&w.progress, time.Now())
			w.show.finish()
			return document, nil
		}
		var status *client.StatusError
		if !client.Lost(err) && (!errors.As(err, &status) || status.Reason != "Expired") {
			return nil, err
		}
		if client.Lost(err) {
			if err := w.session.recover(ctx); err != nil {
				return nil, err
			}
			if w.interrupted {
				// The request to cancel may be what got lost.
				w.cancelRun(ctx)
			}
		}
	}
}

// watch follows the run over one connection; nil means that the run has ended.
func (w *waiter) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.progress = progress{tasks: map[string]*skiff.Task{}, pods: map[string]*core.Pod{}}
	changes := make(chan func(), 64)
	streams, ctx := errgroup.WithContext(ctx)
	send := func(change func()) error {
		select {
		case changes <- change:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	w.streams(ctx, streams, send)
	// Closed changes say that the streams have ended; why is in broken.
	var broken error
	go func() {
		broken = streams.Wait()
		close(changes)
	}()
	err := w.loop(ctx, changes)
	cancel()
	for range changes {
		// What still comes is too late; the streams end with the context.
		continue
	}
	if errors.Is(err, errStreams) {
		return broken
	}
	return err
}

// streams starts the watches of the run, its tasks and its pods.
func (w *waiter) streams(ctx context.Context, streams *errgroup.Group, send func(func()) error) {
	c, p := w.session.client, &w.progress
	streams.Go(func() error {
		opts := client.ListOptions{Namespace: w.namespace, Fields: "metadata.name=" + w.run}
		return c.Watch(ctx, mustKind("runs"), opts, func(event client.Event) error {
			var run skiff.Run
			if err := decode(event.Object, &run); err != nil {
				return err
			}
			return send(func() { p.run = run })
		})
	})
	streams.Go(func() error {
		opts := client.ListOptions{Namespace: w.namespace, Fields: "spec.run=" + w.run}
		return c.Watch(ctx, mustKind("tasks"), opts, func(event client.Event) error {
			task := &skiff.Task{}
			if err := decode(event.Object, task); err != nil {
				return err
			}
			return send(func() {
				p.tasks[task.Name] = task
				if task.Status.Reason == core.ReasonPaused {
					w.untold = append(w.untold, task)
				}
			})
		})
	})
	streams.Go(func() error {
		opts := client.ListOptions{Namespace: w.namespace, Labels: core.LabelRun + "=" + w.run}
		return c.Watch(ctx, mustKind("pods"), opts, func(event client.Event) error {
			pod := &core.Pod{}
			if err := decode(event.Object, pod); err != nil {
				return err
			}
			return send(func() { p.pods[pod.Name] = pod })
		})
	})
}

// errStreams: the watches have ended before the run.
var errStreams = errors.New("watches ended")

func (w *waiter) loop(ctx context.Context, changes <-chan func()) error {
	var ticks <-chan time.Time
	if interval := w.show.tick(); interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case change, open := <-changes:
			if !open {
				return errStreams
			}
			change()
			drain(changes)
		case <-ticks:
		case <-w.signals:
			if w.interrupted {
				return errLeft
			}
			w.interrupted = true
			w.app.notef("skiff: cancelling run %s; interrupt again to leave at once", w.run)
			w.cancelRun(ctx)
		}
		w.tellPaused()
		w.show.update(&w.progress, time.Now())
		if w.progress.run.Status.State.Terminal() {
			return nil
		}
	}
}

// drain applies what else is ready, so that a burst is drawn once.
func drain(changes <-chan func()) {
	for {
		select {
		case change, open := <-changes:
			if !open {
				return
			}
			change()
		default:
			return
		}
	}
}

// settle takes the last states from the document: the run's end may have come
// over its watch before the last tasks' came over theirs.
func (w *waiter) settle(run *view.Run) {
	w.progress.run.Status.State = run.State
	if run.Finished != nil {
		w.progress.run.Status.FinishedAt = *run.Finished
	}
	for i := range run.Tasks {
		t := &run.Tasks[i]
		task := w.progress.tasks[t.ID]
		if task == nil {
			task = &skiff.Task{Spec: skiff.TaskSpec{Path: t.Name, Type: t.Type}}
			task.Name, task.CreationTimestamp = t.ID, run.Created
			w.progress.tasks[t.ID] = task
		}
		task.Status.State, task.Status.Message, task.Status.Cached, task.Status.Pod = t.State, t.Message, t.Cached, t.Pod
		if t.ReusedFrom != "" {
			task.Status.Reuse = &skiff.Reuse{From: t.ReusedFrom, Reason: t.ReuseReason}
		}
		if t.Started != nil {
			task.Status.StartedAt = *t.Started
		}
		if t.Finished != nil {
			task.Status.FinishedAt = *t.Finished
		}
	}
}

func (w *waiter) cancelRun(ctx context.Context) {
	if _, err := w.session.client.Cancel(ctx, w.namespace, w.run); err != nil {
		w.app.notef("skiff: cancel run %s: %v", w.run, err)
	}
}
