package recurring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

const (
	// workers is how many runs are made at a time. Each waits for a durable write
	// most of its time, and what waits together is written together.
	workers = 16
	// firstBackoff and lastBackoff are between two attempts where the machine is
	// at fault; a full disk is looked at once a minute.
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// Submission is a run to be made; the fields are those of skiff.RunSpec.
type Submission struct {
	Namespace, Name, DisplayName, Experiment string
	Filename                                 string
	Package                                  []byte
	// Parameters are typed values, Arguments texts to be read by the types of the
	// pipeline's inputs.
	Parameters                   map[string]json.RawMessage
	Arguments                    map[string]string
	PipelineRoot, ServiceAccount string
	PipelineVersion              *skiff.PipelineVersionReference
	RecurringRun                 string
	ScheduledAt                  time.Time
}

// Pipelines says what a run is made of.
type Pipelines interface {
	// Prepare checks a submission and returns the run and all that must be
	// committed for it to be. It writes nothing. A refusal is of class
	// problem.ErrInvalid; any other error is a fault that may pass.
	Prepare(ctx context.Context, s Submission) (*skiff.Run, []store.Op, error)
}

// Config is what a Controller is made of. Store and Pipelines are required.
type Config struct {
	Store     store.Interface
	Pipelines Pipelines
	Logger    *slog.Logger
	// Now is the wall clock and NewAlarm makes what wakes by it; time.Now and this
	// package's NewAlarm where they are nil.
	Now      func() time.Time
	NewAlarm func() (Alarm, error)
}

// Controller makes the runs that are due. Make one with New and drive it with Run.
type Controller struct {
	store     store.Interface
	pipelines Pipelines
	log       *slog.Logger
	now       func() time.Time
	newAlarm  func() (Alarm, error)
}

// New returns a controller that does nothing until Run.
func New(cfg Config) (*Controller, error) {
	if cfg.Store == nil || cfg.Pipelines == nil {
		return nil, errors.New("recurring: Store and Pipelines are required")
	}
	c := &Controller{store: cfg.Store, pipelines: cfg.Pipelines, log: cfg.Logger, now: cfg.Now, newAlarm: cfg.NewAlarm}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.newAlarm == nil {
		c.newAlarm = NewAlarm
	}
	return c, nil
}

// Run makes runs as they become due and blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) (err error) {
	alarm, err := c.newAlarm()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alarm.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	news := make(chan news)
	group.Go(func() error { return c.follow(ctx, news) })
	l := &loop{c: c, group: group, alarm: alarm, news: news, outcomes: make(chan outcome, workers), book: newBook()}
	group.Go(func() error { return l.run(ctx) })
	return group.Wait()
}

// news is what the store has to tell: all there is, or what changed.
type news struct {
	// all and runs are set where the list begins anew.
	all      []*skiff.RecurringRun
	runs     []*skiff.Run
	revision uint64

	events []store.Event
}

// follow lists what is enabled and active and passes on every change.
func (c *Controller) follow(ctx context.Context, to chan<- news) error {
	for {
		err := c.followOnce(ctx, to)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, store.ErrGone) {
			return fmt.Errorf("follow recurring runs: %w", err)
		}
		c.log.Warn("fell behind the store's change log, listing the recurring runs again")
	}
}

func (c *Controller) followOnce(ctx context.Context, to chan<- news) error {
	all, revision, err := store.AllAs[*skiff.RecurringRun](ctx, c.store, store.ListOptions{Kind: KindName, Index: IndexEnabled, Prefix: enabled})
	if err != nil {
		return fmt.Errorf("list recurring runs: %w", err)
	}
	// What ends between the two lists is told of again by the watch.
	active, _, err := store.AllAs[*skiff.Run](ctx, c.store, store.ListOptions{Kind: runsKind, Index: indexActive})
	if err != nil {
		return fmt.Errorf("list active runs: %w", err)
	}
	watcher, err := c.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName, runsKind}, From: revision})
	if err != nil {
		return err
	}
	defer watcher.Close()
	send := func(n news) error {
		select {
		case to <- n:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := send(news{all: all, runs: active, revision: revision}); err != nil {
		return err
	}
	for {
		events, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		if err := send(news{events: events}); err != nil {
			return err
		}
	}
}

// outcome is what came of an attempt to make a run.
type outcome struct {
	key store.Key
	// revision is the store's that the attempt saw or made: before the changes up
	// to it have come, nothing new can be decided.
	revision uint64
	err      error
}

// loop owns the book.
type loop struct {
	c        *Controller
	group    *errgroup.Group
	alarm    Alarm
	news     <-chan news
	outcomes chan outcome
	*book
	busy int
	set  time.Time // what the alarm is set to
}

func (l *loop) run(ctx context.Context) error {
	for {
		select {
		case n := <-l.news:
			l.hear(n)
		case o := <-l.outcomes:
			l.busy--
			l.settle(o)
		case <-l.alarm.C():
			// The clock may have been set: nothing that was derived from it holds.
			l.set = time.Time{}
		case <-ctx.Done():
			// Attempts in progress end with ctx; the channel has room for all.
			return context.Cause(ctx)
		}
		l.wake(l.c.now())
		l.begin(ctx)
		if at := l.first(); !at.Equal(l.set) {
			if err := l.alarm.Set(at); err != nil {
				return err
			}
			l.set = at
		}
	}
}

// settle takes note of how an attempt ended.
func (l *loop) settle(o outcome) {
	e := l.entries[o.key] // what is busy is never forgotten
	if o.err == nil {
		e.faults, e.retry = 0, time.Time{}
	} else {
		e.retry = l.c.now().Add(min(firstBackoff<<min(e.faults, 10), lastBackoff))
		e.faults++
		l.c.log.Error("a run that is due could not be made; it is tried again", "recurring", o.key.Name, "again", e.retry, "error", o.err)
	}
	l.done(e, o.revision)
}

// begin starts attempts as long as there are workers.
func (l *loop) begin(ctx context.Context) {
	for l.busy < workers {
		e := l.take()
		if e == nil {
			return
		}
		e.busy = true
		l.busy++
		key := e.key
		l.group.Go(func() error {
			revision, err := l.c.attempt(ctx, key)
			if ctx.Err() != nil {
				err = nil // it is begun again by the next daemon
			}
			l.outcomes <- outcome{key: key, revision: revision, err: err}
			return nil
		})
	}
}
