package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
)

// Reasons of tasks and runs, one word each.
const (
	reasonCondition     = "ConditionFalse"
	reasonUpstream      = "UpstreamNotSucceeded"
	reasonInputs        = "InvalidInputs"
	reasonOutputs       = "InvalidOutputs"
	reasonTasksFailed   = "TasksFailed"
	reasonCancelled     = "Cancelled"
	reasonDeadline      = "DeadlineExceeded"
	reasonInternalFault = "InternalFault"
)

// start looks at a node whose dependencies are all final and sets it going, or
// settles it where there is nothing to run.
func (x *execution) start(ctx context.Context, n *node) {
	// What had begun when an execution before this one ended is taken up all the
	// same: only then can it be stopped.
	if x.cancelling() && !n.exempt && !n.begun() {
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled before this task started")
		return
	}
	if n.spec.TriggerPolicy.Strategy != kfp.AllUpstreamTasksCompleted {
		for _, up := range n.upstream {
			if up.state() != skiff.StateSucceeded {
				x.settle(n, skiff.StateSkipped, reasonUpstream, fmt.Sprintf("%s ended as %s", up.key, up.state()))
				return
			}
		}
	}
	in, err := x.resolve(n)
	if err != nil {
		x.fail(n, reasonInputs, err)
		return
	}
	n.inputs = in
	if condition := n.spec.TriggerPolicy.Condition; condition != "" && n.task.Status.StartedAt.IsZero() {
		holds, err := expr.EvalCondition(condition, in.params)
		if err != nil {
			x.fail(n, reasonInputs, fmt.Errorf("condition: %w", err))
			return
		}
		if !holds {
			x.settle(n, skiff.StateSkipped, reasonCondition, "its condition is not true: "+condition)
			return
		}
	}
	if !n.task.Status.RetryAt.IsZero() && n.kind != skiff.TaskContainer {
		// The back-off began in an execution before this one.
		x.after(n, n.task.Status.RetryAt.Sub(x.c.now()), func() { x.again(n) })
		return
	}
	x.begin1(ctx, n)
}

// begin1 sets a node going whose inputs are known.
func (x *execution) begin1(ctx context.Context, n *node) {
	x.weigh(n)
	switch n.kind {
	case skiff.TaskLoop:
		x.startLoop(ctx, n)
	case skiff.TaskDAG, skiff.TaskIteration:
		x.startDAG(n)
	case skiff.TaskImporter:
		x.startImporter(ctx, n)
	default:
		if image := x.claimOperation(n); image != "" {
			x.startClaimOperation(ctx, n, image)
			return
		}
		x.startContainer(ctx, n)
	}
}

// begun marks a node as running and keeps its inputs for lineage.
func (x *execution) begun(n *node) {
	n.task.Status.Inputs = n.inputs.params.encoded()
	n.task.Status.InputArtifacts = n.inputs.artifacts.names()
	if n.task.Status.StartedAt.IsZero() {
		n.task.Status.StartedAt = x.c.now()
	}
	n.task.Status.State = skiff.StateRunning
	x.touch(n)
}

// startDAG opens the body of a sub-DAG or of a loop's pass.
func (x *execution) startDAG(n *node) {
	n.rounds = max(n.task.Status.Attempts, 1)
	if n.state() != skiff.StateRunning || n.task.Status.Attempts != n.rounds {
		n.task.Status.Attempts = n.rounds
		x.begun(n)
	}
	n.inner = x.newScope(n, n.component, n.inputs)
	x.enter(n.inner)
}

// startLoop finds the loop's items and starts as many passes as may run at once.
func (x *execution) startLoop(ctx context.Context, n *node) {
	items, err := x.loopItems(n)
	if err != nil {
		x.fail(n, reasonInputs, err)
		return
	}
	n.items, n.looping = items, true
	n.rounds = max(n.task.Status.Attempts, 1)
	if n.state() != skiff.StateRunning || n.task.Status.Attempts != n.rounds {
		n.task.Status.Attempts = n.rounds
		n.task.Status.Iterations = len(items)
		x.begun(n)
	}
	x.nextPasses(ctx, n)
}

// nextPasses starts passes of a loop up to its parallelism limit. When the run is
// being cancelled none begins, and those that had begun before are taken up.
func (x *execution) nextPasses(ctx context.Context, n *node) {
	stopping := x.cancelling() && !n.exempt
	limit := n.spec.IteratorPolicy.ParallelismLimit
	for len(n.passes) < len(n.items) && (limit <= 0 || n.active < limit) {
		index := len(n.passes)
		if stopping && x.stored[taskName(x.run.Name, n.passPath(index))] == nil {
			break
		}
		pass := x.newPass(n, index)
		n.passes = append(n.passes, pass)
		if pass.final() {
			x.recall(pass)
			continue
		}
		n.active++
		var err error
		if pass.inputs, err = n.inputs.with(n, n.items[index]); err != nil {
			x.fail(pass, reasonInputs, err)
			continue
		}
		x.begin1(ctx, pass)
	}
	switch {
	case n.active > 0:
	case len(n.passes) == len(n.items):
		x.loopEnded(n)
	case stopping:
		x.settleComposite(n, skiff.StateCanceled, "the run was cancelled")
	}
}

// fail settles a node that cannot go on.
func (x *execution) fail(n *node, reason string, err error) {
	x.settle(n, skiff.StateFailed, reason, err.Error())
}

// settle gives a node its final state and lets that have its consequences.
func (x *execution) settle(n *node, state skiff.State, reason, message string) {
	if n.final() {
		return
	}
	status := &n.task.Status
	status.State, status.Reason, status.Message = state, reason, message
	status.FinishedAt = x.c.now()
	if state == skiff.StateSucceeded {
		status.Outputs = n.outputs.encoded()
		status.OutputArtifacts = n.results.names()
	}
	x.touch(n)
	x.noteReuse(n)
	n.letGo()
	if n.pod != nil {
		delete(x.byPod, n.pod.Name)
	}
	if n.warm != nil {
		x.dropWarm(n)
	}
	x.disarm(n)
	n.inner = nil
	x.propagate(n)
}

// propagate tells those who wait for a final node.
func (x *execution) propagate(n *node) {
	if n.loop != nil {
		n.loop.active--
		x.ready = append(x.ready, n.loop)
		return
	}
	for _, next := range n.dependents {
		if next.waiting--; next.waiting == 0 && !next.final() {
			x.ready = append(x.ready, next)
		}
	}
	if n.scope.open--; n.scope.open == 0 {
		x.scopeEnded(n.scope)
	}
}

// scopeEnded settles the owner of a scope whose nodes are all final.
func (x *execution) scopeEnded(s *scope) {
	state, message := s.outcome()
	if s.owner == nil {
		x.rootEnded(state, message)
		return
	}
	n := s.owner
	if state == skiff.StateSucceeded {
		var err error
		if n.outputs, n.results, err = s.outputs(); err != nil {
			x.fail(n, reasonOutputs, err)
			return
		}
	}
	x.settleComposite(n, state, message)
}

// loopEnded settles a loop whose passes are all final.
func (x *execution) loopEnded(n *node) {
	state, message := outcomeOf(n.passes)
	if state == skiff.StateSucceeded {
		n.outputs, n.results = collect(n)
	}
	x.settleComposite(n, state, message)
}

// settleComposite settles a DAG or a loop, or begins it again where it failed
// and its retry policy allows.
func (x *execution) settleComposite(n *node, state skiff.State, message string) {
	policy := n.spec.RetryPolicy
	if state == skiff.StateFailed && policy != nil && n.rounds-n.task.Status.Spent <= policy.MaxRetryCount && !x.cancelling() && n.loop == nil {
		delay := retryDelay(policy, n.rounds-n.task.Status.Spent)
		n.rounds++
		n.task.Status.Attempts = n.rounds
		n.task.Status.RetryAt = x.c.now().Add(delay)
		n.inner, n.passes, n.items, n.active, n.looping = nil, nil, nil, 0, false
		x.touch(n)
		x.after(n, delay, func() { x.again(n) })
		return
	}
	reason := ""
	switch state {
	case skiff.StateFailed:
		reason = reasonTasksFailed
	case skiff.StateCanceled:
		reason = reasonCancelled
	}
	x.settle(n, state, reason, message)
}

// again begins a DAG's next round.
func (x *execution) again(n *node) {
	n.task.Status.RetryAt = time.Time{}
	x.touch(n)
	x.ready = append(x.ready, n)
}

// outcome is the state that follows from a scope's final nodes.
func (s *scope) outcome() (skiff.State, string) {
	nodes := make([]*node, 0, len(s.order))
	for _, key := range s.order {
		nodes = append(nodes, s.nodes[key])
	}
	return outcomeOf(nodes)
}

func outcomeOf(nodes []*node) (skiff.State, string) {
	var failed, cancelled *node
	more := 0
	for _, n := range nodes {
		switch n.state() {
		case skiff.StateFailed:
			if failed == nil {
				failed = n
			} else {
				more++
			}
		case skiff.StateCanceled:
			cancelled = n
		}
	}
	switch {
	case failed != nil && more > 0:
		return skiff.StateFailed, fmt.Sprintf("%s failed: %s (and %d more)", failed.path, failed.task.Status.Message, more)
	case failed != nil:
		return skiff.StateFailed, fmt.Sprintf("%s failed: %s", failed.path, failed.task.Status.Message)
	case cancelled != nil:
		return skiff.StateCanceled, cancelled.path + " was cancelled"
	default:
		return skiff.StateSucceeded, ""
	}
}

// rootEnded ends the run.
func (x *execution) rootEnded(state skiff.State, message string) {
	if x.run.Status.State.Terminal() {
		return
	}
	if x.cancelling() {
		x.endRun(x.cancelOutcome(), x.run.Status.Reason, x.run.Status.Message)
		return
	}
	if state == skiff.StateSucceeded {
		outputs, results, err := x.root.outputs()
		if err != nil {
			x.endRun(skiff.StateFailed, reasonOutputs, err.Error())
			return
		}
		x.run.Status.Outputs = outputs.encoded()
		x.run.Status.OutputArtifacts = results.names()
		x.endRun(state, "", "")
		return
	}
	x.endRun(state, reasonTasksFailed, message)
}

// cancelOutcome: a run that was stopped for its deadline has failed, one that a
// person stopped is cancelled.
func (x *execution) cancelOutcome() skiff.State {
	if x.run.Status.Reason == reasonDeadline {
		return skiff.StateFailed
	}
	return skiff.StateCanceled
}

func (x *execution) endRun(state skiff.State, reason, message string) {
	status := &x.run.Status
	status.Reason, status.Message = reason, message
	status.FinishedAt = x.c.now()
	status.Metrics = x.metrics()
	status.Enter(state, status.FinishedAt, message)
	x.runDirty = true
	x.dropGated()
}

// cancelling reports whether the run is being stopped.
func (x *execution) cancelling() bool { return x.run.Status.State == skiff.StateCanceling }

// cancel stops the run: what runs is asked to end, what waits never starts.
// Only tasks that run when their upstream is final in any state still do (exit
// handlers), if that upstream has begun at all.
func (x *execution) cancel() {
	if x.run.Status.State.Terminal() || x.cancelling() {
		return
	}
	x.setCancelling()
	if x.root != nil {
		x.cancelScope(x.root)
	}
}

func (x *execution) setCancelling() {
	if x.run.Status.Reason == "" {
		x.run.Status.Reason, x.run.Status.Message = reasonCancelled, "the run was cancelled"
	}
	x.run.Status.Enter(skiff.StateCanceling, x.c.now(), x.run.Status.Message)
	x.runDirty = true
}

func (x *execution) cancelScope(s *scope) {
	// Exit tasks first: settling a node may make its dependents ready.
	s.exemptExitTasks()
	for _, key := range s.order {
		x.cancelNode(s.nodes[key])
	}
}

// exemptExitTasks lets the tasks run, although the run is being cancelled, that
// run when their upstream is final in any state, if that has begun at all.
func (s *scope) exemptExitTasks() {
	for _, key := range s.order {
		if n := s.nodes[key]; n.spec.TriggerPolicy.Strategy == kfp.AllUpstreamTasksCompleted {
			n.exempt = n.exempt || anyBegun(n.upstream)
		}
	}
}

func anyBegun(nodes []*node) bool {
	for _, n := range nodes {
		if !n.task.Status.StartedAt.IsZero() {
			return true
		}
	}
	return false
}

func (x *execution) cancelNode(n *node) {
	switch {
	case n.final() || n.exempt:
	case n.kind == skiff.TaskLoop && len(n.passes) > 0:
		// No further pass starts; those that run are stopped.
		for _, pass := range append([]*node(nil), n.passes...) {
			x.cancelNode(pass)
		}
	case n.inner != nil:
		x.cancelScope(n.inner)
	case n.abandon != nil:
		n.abandon()
	case n.transfer != nil: // nothing of it runs: it waits for an object store
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
	case n.pod != nil && !n.pod.Status.Phase.Terminal() && x.timers[n] == nil:
		x.stopPods = append(x.stopPods, n.pod.Name)
	case n.waiting > 0 && n.loop == nil && n.task.Status.StartedAt.IsZero():
		// Its upstream settles in this same turn, or is exempt: start sees to it.
	default:
		x.settle(n, skiff.StateCanceled, reasonCancelled, "the run was cancelled")
	}
}

// after calls then on the execution's goroutine when delay has passed.
func (x *execution) after(n *node, delay time.Duration, then func()) {
	if delay <= 0 {
		then()
		return
	}
	x.busy++
	x.timers[n] = time.AfterFunc(delay, func() {
		x.events.post(event{then: func() {
			delete(x.timers, n)
			then()
		}})
	})
}

// disarm takes back what after was to do for a node.
func (x *execution) disarm(n *node) {
	if timer := x.timers[n]; timer != nil {
		if timer.Stop() {
			x.busy--
		}
		delete(x.timers, n)
	}
}

// retryDelay is the wait before the attempt after the given one.
func retryDelay(policy *kfp.RetryPolicy, attempts int) time.Duration {
	base, limit := policy.BackoffDuration.Duration(), policy.BackoffMaxDuration.Duration()
	if base <= 0 {
		return 0
	}
	factor := policy.BackoffFactor
	if factor <= 0 {
		factor = 2
	}
	if limit <= 0 {
		limit = time.Hour
	}
	delay := float64(base)
	for i := 1; i < attempts && delay < float64(limit); i++ {
		delay *= factor
	}
	if delay >= float64(limit) { // compared as it is: a duration cannot hold every number
		return limit
	}
	return time.Duration(delay)
}
