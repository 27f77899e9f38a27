package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// execution is one active run. All its fields belong to the goroutine of Run;
// others only post events.
type execution struct {
	c      *Controller
	log    *slog.Logger
	events *mailbox
	stop   context.CancelCauseFunc
	// done is closed when the controller holds the execution no more.
	done chan struct{}

	// retries is the run's count of retries that this execution is of; followed
	// is set, under the controller's lock, where another one has to follow it.
	retries  int
	followed bool

	run  *skiff.Run
	ir   *kfp.PipelineSpec
	plat *kfp.KubernetesPlatform
	root *scope
	// origin is the run that this one goes on from, nil for a run of its own.
	origin *origin
	// before are runs to explain cache misses by, nil until one is to be.
	before []*origin
	// stored holds the run's tasks and artifacts as they were when the
	// execution began, until the graph has taken them up.
	stored    map[string]*skiff.Task
	artifacts map[string]*skiff.Artifact
	// byPod finds the node whose newest attempt a pod is.
	byPod map[string]*node
	// gated are the gated pods that the store had when the execution began, by
	// name, until their nodes have taken them up.
	gated map[string]*core.Pod

	ready []*node
	// What the next transaction writes.
	touched      []*node
	newPods      []*core.Pod
	lifted       []*core.Pod // gated pods that may run now
	dropped      []string    // gated pods that are of no use
	stopPods     []string
	newArtifacts []*skiff.Artifact
	newClaim     *core.PersistentVolumeClaim // of the workspace
	runDirty     bool

	// downloads are the copies into the run's workspace that are under way, by
	// their place there, with what waits for each; downloaded says of which places
	// this run has made one.
	downloads  map[string][]func()
	downloaded map[string]bool
	// What this execution counted into the controller's uses.
	heldNames, heldKeys []string

	timers map[*node]*time.Timer
	// busy counts work outside of this goroutine whose event is still to come.
	busy int
}

// event is something that happened to a run.
type event struct {
	pod *core.Pod
	// gone: the pod was deleted; it may never have been let in.
	gone     bool
	cancel   bool
	deadline bool
	// resync: events may have been missed, look at the pods again.
	resync bool
	// then is the answer of work that was done outside, note a word of it while
	// it goes on.
	then, note func()
}

// Run drives the run to its end. It returns early, with everything durable,
// when ctx ends.
func (x *execution) Run(ctx context.Context) error {
	defer func() {
		for _, timer := range x.timers {
			timer.Stop()
		}
	}()
	if deadline := x.deadline(); !deadline.IsZero() {
		timer := time.AfterFunc(time.Until(deadline), func() { x.events.post(event{deadline: true}) })
		defer timer.Stop()
	}
	x.begin(ctx)
	for {
		x.advance(ctx)
		if err := x.flush(ctx); err != nil {
			return err
		}
		if x.run.Status.State.Terminal() && x.busy == 0 {
			return nil
		}
		batch, err := x.events.take(ctx)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			// Work outside that ended because of it says nothing about its step:
			// whoever takes the run up next does it again.
			return context.Cause(ctx)
		}
		for _, e := range batch {
			x.handle(ctx, e)
		}
	}
}

// begin builds the graph and takes up what was done before.
func (x *execution) begin(ctx context.Context) {
	now := x.c.now()
	if x.run.Status.State == "" || x.run.Status.State == skiff.StatePending {
		x.run.Status.Enter(skiff.StateRunning, now, "")
		x.run.Status.StartedAt = now
		x.runDirty = true
	}
	in, err := x.rootInputs(ctx)
	if err != nil {
		x.endRun(skiff.StateFailed, "InvalidInputs", err.Error())
		return
	}
	if x.run.Spec.Cancel && !x.cancelling() {
		x.setCancelling()
	}
	x.root = x.newScope(nil, x.ir.Root, in)
	x.enter(x.root)
	if x.cancelling() {
		// What runs is taken up first: only then is it known what to stop.
		x.advance(ctx)
		x.cancelScope(x.root)
	}
}

// enter makes a scope's nodes take part: those that are final count as such,
// those that wait for nothing are ready.
func (x *execution) enter(s *scope) {
	var ended []*node
	for _, key := range s.order {
		switch n := s.nodes[key]; {
		case n.final():
			x.recall(n)
			ended = append(ended, n)
		case n.waiting == 0:
			x.ready = append(x.ready, n)
		}
	}
	for _, n := range ended {
		x.propagate(n)
	}
	if s.open == 0 && len(ended) == 0 {
		x.scopeEnded(s) // an empty DAG
	}
}

// recall reads a final task's results back from what was stored.
func (x *execution) recall(n *node) {
	n.outputs = make(values, len(n.task.Status.Outputs))
	for name, raw := range n.task.Status.Outputs {
		n.outputs[name] = decoded(raw)
	}
	n.results = make(artifactMap, len(n.task.Status.OutputArtifacts))
	for name, ids := range n.task.Status.OutputArtifacts {
		list := artifactList{list: n.isArtifactList(name)}
		for _, id := range ids {
			if a := x.artifacts[id]; a != nil {
				list.items = append(list.items, a)
			}
		}
		n.results[name] = list
	}
}

// isArtifactList says whether an output holds a list: where it is declared so,
// and for every output of a loop, which collects its passes.
func (n *node) isArtifactList(output string) bool {
	if n.kind == skiff.TaskLoop {
		return true
	}
	spec := n.component.OutputDefinitions.Artifacts[output]
	return spec != nil && spec.IsArtifactList
}

// advance starts what is ready until nothing more is.
func (x *execution) advance(ctx context.Context) {
	for len(x.ready) > 0 {
		n := x.ready[0]
		x.ready = x.ready[1:]
		switch {
		case n.final() || x.timers[n] != nil: // its end, or its next round, is yet to come
		case n.looping:
			x.nextPasses(ctx, n)
		default:
			x.start(ctx, n)
		}
	}
	x.ready = nil
}

// handle takes one event up.
func (x *execution) handle(ctx context.Context, e event) {
	switch {
	case e.then != nil:
		x.busy--
		e.then()
	case e.note != nil:
		e.note()
	case e.cancel:
		x.run.Spec.Cancel = true
		x.cancel()
	case e.resync:
		x.lookAgain(ctx)
	case e.deadline:
		if !x.run.Status.State.Terminal() && !x.cancelling() {
			x.run.Status.Reason = reasonDeadline
			x.run.Status.Message = "the run's deadline has passed"
			x.cancel()
		}
	case e.pod != nil:
		switch n := x.byPod[e.pod.Name]; {
		case n == nil || n.final():
		case e.gone && !e.pod.Status.Phase.Terminal():
			x.podGone(ctx, n)
		default:
			x.podChanged(ctx, n, e.pod)
		}
	}
}

// lookAgain reads the pods that this execution waits for.
func (x *execution) lookAgain(ctx context.Context) {
	for _, name := range sortedKeys(x.byPod) {
		n := x.byPod[name]
		if n == nil || n.final() {
			continue
		}
		switch obj, err := x.c.store.Get(ctx, store.Key{Kind: podsKind, Namespace: x.run.Namespace, Name: name}); {
		case err == nil:
			x.podChanged(ctx, n, obj.(*core.Pod))
		case errors.Is(err, store.ErrNotFound) && n.pod != nil && n.pod.ResourceVersion != "":
			x.podGone(ctx, n)
		}
	}
}

// outside runs work away from the execution's goroutine. What it returns is
// called back on it.
func (x *execution) outside(ctx context.Context, work func(ctx context.Context) func()) {
	x.busy++
	x.c.work.Go(func() error {
		then := work(ctx)
		x.events.post(event{then: then})
		return nil
	})
}

// touch marks a node's task to be written.
func (x *execution) touch(n *node) {
	if !n.dirty {
		n.dirty = true
		x.touched = append(x.touched, n)
	}
}

// flush writes everything that changed in one transaction and returns when it
// is durable. A store that cannot take it now is asked again: nothing else can
// be done with a run whose state cannot be kept.
func (x *execution) flush(ctx context.Context) error {
	if len(x.touched)+len(x.newPods)+len(x.lifted)+len(x.dropped)+len(x.newArtifacts)+len(x.stopPods) == 0 && x.newClaim == nil && !x.runDirty {
		return nil
	}
	x.count()
	for attempt := 0; ; attempt++ {
		ops, err := x.operations(ctx)
		if err == nil {
			_, err = x.c.store.Commit(ctx, ops...)
		}
		switch {
		case err == nil:
			x.written()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, store.ErrNotFound) && len(x.lifted)+len(x.dropped) > 0 && attempt < maxRestarts:
			// A gated pod went away between its reading and the commit: the next
			// look finds it gone. Where it was the run, that stays not found.
		case errors.Is(err, store.ErrNotFound):
			// The run, or what belongs to it, was deleted under us.
			return fmt.Errorf("write run %s: %w", x.run.Name, err)
		case errors.Is(err, store.ErrConflict):
			if err := x.rebase(ctx); err != nil {
				return err
			}
		default:
			x.log.Error("run state is not written, trying again", "run", x.run.Name, "error", err)
			if err := x.c.sleep(ctx, backoff(attempt)); err != nil {
				return err
			}
		}
	}
}

// count brings the run's counts of tasks by state up to date.
func (x *execution) count() {
	counts := maps.Clone(x.run.Status.TaskCounts)
	if counts == nil {
		counts = map[skiff.State]int{}
	}
	for _, n := range x.touched {
		if n.counted == n.state() {
			continue
		}
		if counts[n.counted]--; counts[n.counted] <= 0 {
			delete(counts, n.counted)
		}
		counts[n.state()]++
		n.counted = n.state()
	}
	x.run.Status.TaskCounts = counts
}

// operations is the transaction. A task that the store has is written without
// comparing versions: this execution is its only writer.
func (x *execution) operations(ctx context.Context) ([]store.Op, error) {
	lifts, err := x.liftOps(ctx) // first: it may change what is to be written of tasks and pods
	if err != nil {
		return nil, err
	}
	drops, err := x.dropOps(ctx)
	if err != nil {
		return nil, err
	}
	ops := make([]store.Op, 0, len(lifts)+len(drops)+len(x.touched)+len(x.newPods)+len(x.newArtifacts)+len(x.stopPods)+2)
	ops = append(append(ops, lifts...), drops...)
	if x.newClaim != nil {
		ops = append(ops, store.Op{Verb: store.Create, Kind: claimsKind, Object: x.newClaim})
	}
	for _, n := range x.touched {
		verb := store.Update
		if !n.created {
			verb = store.Create
		}
		n.task.ResourceVersion = ""
		ops = append(ops, store.Op{Verb: verb, Kind: Tasks, Object: n.task})
	}
	for _, a := range x.newArtifacts {
		ops = append(ops, store.Op{Verb: store.Create, Kind: Artifacts, Object: a})
	}
	for _, p := range x.newPods {
		if slices.Contains(x.stopPods, p.Name) {
			p.Spec.Skiff.Stop = true // made and cancelled since the last transaction
		}
		ops = append(ops, store.Op{Verb: store.Create, Kind: podsKind, Object: p})
	}
	for _, name := range x.stopPods {
		if slices.ContainsFunc(x.lifted, func(p *core.Pod) bool { return p.Name == name }) {
			continue // lifted and cancelled in one: said there
		}
		op, err := x.stopOp(ctx, name)
		if err != nil {
			return nil, err
		}
		if op != nil {
			ops = append(ops, *op)
		}
	}
	if x.runDirty || len(x.touched) > 0 {
		ops = append(ops, store.Op{Verb: store.Update, Kind: Runs, Object: x.run})
	}
	return ops, nil
}

// stopOp asks a pod to end. The pod controller writes pods too, so the version
// that was read goes along; a pod that is final or gone needs nothing.
func (x *execution) stopOp(ctx context.Context, name string) (*store.Op, error) {
	obj, err := x.c.store.Get(ctx, store.Key{Kind: podsKind, Namespace: x.run.Namespace, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pod := obj.(*core.Pod)
	if pod.Status.Phase.Terminal() || (pod.Spec.Skiff != nil && pod.Spec.Skiff.Stop) {
		return nil, nil
	}
	if pod.Spec.Skiff == nil {
		pod.Spec.Skiff = &core.PodExtension{}
	}
	pod.Spec.Skiff.Stop = true
	return &store.Op{Verb: store.Update, Kind: podsKind, Object: pod}, nil
}

// written forgets what the transaction held.
func (x *execution) written() {
	for _, n := range x.touched {
		n.created, n.dirty = true, false
	}
	x.c.hashLater(x.newArtifacts)
	x.touched, x.newPods, x.newArtifacts, x.stopPods, x.runDirty = nil, nil, nil, nil, false
	x.lifted, x.dropped, x.newClaim = nil, nil, nil
}

// rebase takes over what others changed in the run (its labels, or that it is
// to be cancelled) under the status that this execution owns.
func (x *execution) rebase(ctx context.Context) error {
	obj, err := x.c.store.Get(ctx, store.Key{Kind: Runs, Namespace: x.run.Namespace, Name: x.run.Name})
	if err != nil {
		return fmt.Errorf("read run %s again: %w", x.run.Name, err)
	}
	fresh := obj.(*skiff.Run)
	if fresh.Spec.Retries != x.retries {
		return errRetried
	}
	fresh.Status = x.run.Status
	x.run = fresh
	return nil
}

// backoff is how long to wait before writing again: from 50 ms up to 5 s.
func backoff(attempt int) time.Duration {
	return min(50*time.Millisecond<<min(attempt, 8), 5*time.Second)
}
