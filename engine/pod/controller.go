package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// Controller runs pods. Make one with New and let Run own it.
type Controller struct {
	cfg     Config
	store   store.Interface
	backend runtime.Backend
	log     *slog.Logger
	now     func() time.Time
	podsDir string
	spares  *host.Spares // pods' folders
	start   *startGate
	pulls   atomic.Bool // the backend fetches images; else it knows at once

	launchers *host.Host

	inbox chan func() // what the loop is to do
	ready chan struct{}
	blind chan struct{}  // the watch of containers broke off
	group sync.WaitGroup // every goroutine that Run started

	// mu guards what other goroutines read beside the loop.
	mu       sync.Mutex
	runs     map[string]*run // by pod uid
	node     scheduler.Node
	fake     map[string]bool      // device UUID → declared, not real
	leftover map[string]*leftover // of pods that have ended, by uid

	loop loop
}

// loop is what the loop's goroutine alone touches.
type loop struct {
	sched *scheduler.Scheduler
	pods  map[string]*record
	stale bool // something changed since the last decision
	// done holds the last revision of each pod whose run has ended and whose end
	// the watch has not shown yet: what it shows until then is the past, in
	// which the pod still had its claim.
	done   map[string]uint64
	news   []*record
	flush  *time.Timer
	again  *time.Timer
	strays map[string]stray // by container id
	// warm counts the pods whose container waits for them; line are the gated
	// ones for which there is no room, cold those with which it went wrong, by uid.
	warm int
	line map[string]*record
	cold map[string]struct{}
}

// record is a pod that has not ended.
type record struct {
	pod    *core.Pod
	item   scheduler.Item
	run    *run
	ending bool // being failed or finalized by a goroutine of its own
	// warm: the run began before the admission; queued: the scheduler has the
	// pod, its gates are lifted; admitting: its grant is on its way.
	warm, queued, admitting bool
	// What the queue has to say, what the store says, and since when.
	wait, written scheduler.Wait
	writtenAt     time.Time
	dirty         bool
}

// New checks the configuration; nothing is touched before Run.
func New(cfg Config) (*Controller, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Controller{
		cfg: cfg, store: cfg.Store, backend: cfg.Backend, log: cfg.Logger, now: cfg.Now,
		podsDir: filepath.Join(cfg.StateDir, "pods"),
		start:   newStartGate(cfg.StartParallelism),
		inbox:   make(chan func(), 256), ready: make(chan struct{}), blind: make(chan struct{}, 1),
		runs: make(map[string]*run), leftover: make(map[string]*leftover),
	}
	c.spares = host.NewSpares(filepath.Join(c.podsDir, spareFolder), sparePods, makeSpare)
	if c.launchers = cfg.Launchers; c.launchers == nil {
		c.launchers = host.New()
	}
	c.loop = loop{
		sched: scheduler.New(scheduler.Config{Node: cfg.Node, MaxWait: cfg.MaxWait}),
		pods:  make(map[string]*record), done: make(map[string]uint64), strays: make(map[string]stray),
		line: make(map[string]*record), cold: make(map[string]struct{}),
	}
	c.rememberNode(cfg.Node)
	return c, nil
}

// Ready is closed once every pod and container there was has been taken up.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run takes up what an earlier controller left and runs pods until ctx ends. It
// leaves containers running, and returns after all its goroutines have ended:
// nil when ctx asked for it, an error where it cannot go on.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		cancel(nil)
		c.group.Wait()
		c.spares.Close()
		if c.cfg.Launchers == nil {
			_ = c.launchers.Close()
		}
	}()
	containers, err := c.listContainers(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	revision, err := c.takeUp(ctx, containers)
	if err != nil {
		return ended(ctx, err)
	}
	c.spawn(func() { c.watchContainers(ctx) })
	c.spawn(func() {
		if err := c.watchPods(ctx, revision); err != nil {
			cancel(err)
		}
	})
	c.spawn(func() { c.sweepFolders(ctx) })
	c.spawn(func() {
		if err := c.tendClaims(ctx); err != nil {
			cancel(err)
		}
	})
	close(c.ready)
	c.serve(ctx)
	return ended(ctx, nil)
}

// ended turns the end of ctx into Run's result.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("run pods: %w", cause)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run pods: %w", err)
	}
	return nil
}

// spawn starts a goroutine that Run waits for.
func (c *Controller) spawn(fn func()) { c.group.Go(fn) }

// post hands fn to the loop. After ctx ended it is dropped, with the loop.
func (c *Controller) post(ctx context.Context, fn func()) {
	select {
	case c.inbox <- fn:
	case <-ctx.Done():
	}
}

// serve is the loop. It decides once for all that came in together.
func (c *Controller) serve(ctx context.Context) {
	l := &c.loop
	l.flush, l.again = newStopped(), newStopped()
	defer l.flush.Stop()
	defer l.again.Stop()
	defer func() {
		for _, s := range l.strays {
			s.timer.Stop()
		}
	}()
	for {
		if l.stale {
			l.stale = false
			c.schedule(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case fn := <-c.inbox:
			fn()
			c.drain()
		case <-l.flush.C:
			c.writeWaits(ctx)
		case <-l.again.C:
			l.stale = true
		}
	}
}

// drain does what else is there already, up to a bound.
func (c *Controller) drain() {
	for range 256 {
		select {
		case fn := <-c.inbox:
			fn()
		default:
			return
		}
	}
}

func newStopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// SetNode replaces what the scheduler gives out, as when a device falls ill.
// What runs keeps what it has.
func (c *Controller) SetNode(ctx context.Context, node scheduler.Node) {
	c.rememberNode(node)
	c.post(ctx, func() {
		c.loop.sched.SetNode(node)
		c.loop.stale = true
	})
}

func (c *Controller) rememberNode(node scheduler.Node) {
	fake := make(map[string]bool)
	for _, d := range node.Devices {
		if d.Fake {
			fake[d.UUID] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.fake = node, fake
}

func (c *Controller) fakeDevices(uuids []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(uuids) > 0 && c.fake[uuids[0]]
}

// Snapshot says who holds what and who waits for what.
func (c *Controller) Snapshot(ctx context.Context) (scheduler.Snapshot, error) {
	answer := make(chan scheduler.Snapshot, 1)
	select {
	case c.inbox <- func() { answer <- c.loop.sched.Snapshot() }:
	case <-ctx.Done():
		return scheduler.Snapshot{}, context.Cause(ctx)
	}
	select {
	case s := <-answer:
		return s, nil
	case <-ctx.Done():
		return scheduler.Snapshot{}, context.Cause(ctx)
	}
}

// Check reports whether the pod's demand could ever fit the node, and whether
// it makes sense at all: what engines ask at their door.
func (c *Controller) Check(spec *core.PodSpec) error {
	c.mu.Lock()
	node := c.node
	c.mu.Unlock()
	demand, err := Demand(spec, c.defaults())
	if err != nil {
		return err
	}
	return scheduler.Fits(node, demand)
}

func (c *Controller) defaults() Defaults {
	return Defaults{CPUMilli: c.cfg.CPUMilli, MemoryBytes: c.cfg.MemoryBytes}
}
