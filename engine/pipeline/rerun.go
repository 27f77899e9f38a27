package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// A retried run is the same run: one transaction counts the retry up in its
// spec and makes it PENDING, and so active, again. An execution then builds the
// graph as after any restart, with one difference: a stored task whose own count
// of retries is lower than the run's is looked at anew when its scope is entered.
//
//   - What succeeded or was skipped, after upstreams that are all kept, is kept,
//     whatever is below it, unless artifacts that it made are gone: its condition,
//     and the states of those upstreams, would come to the same again.
//   - A DAG or a loop that did not succeed is entered again, with what is below
//     it under the names of before, so that the same rule goes on there.
//   - All else is begun anew: a step by a further attempt, a DAG or a loop by a
//     further round, whose tasks have names of their own (childPath). So an exit
//     handler runs again whenever what it waited for does.
//
// The tasks of a scope are marked in one transaction, the first after the scope
// was entered. A daemon that is killed before has changed nothing; one that is
// killed after finds the marks. Nothing is decided twice, and nothing that
// succeeded runs again.

// Retry takes a run up again that has failed or was cancelled: what succeeded is
// kept. When it returns without an error the request is durable. A run in
// another state is store.ErrConflict.
func (c *Controller) Retry(ctx context.Context, namespace, name string) error {
	key := store.Key{Kind: Runs, Namespace: namespace, Name: name}
	_, err := store.ModifyAs(ctx, c.store, key, func(run *skiff.Run) error {
		status := &run.Status
		if status.Imported != nil {
			return fmt.Errorf("run %s was imported and has no pods here; \"skiff reproduce %s\" runs it again: %w", name, name, store.ErrConflict)
		}
		if status.State != skiff.StateFailed && status.State != skiff.StateCanceled {
			return fmt.Errorf("run %s is %s; only a run that has failed or was cancelled can be retried: %w", name, status.State, store.ErrConflict)
		}
		run.Spec.Retries++
		run.Spec.Cancel = false
		status.Reason, status.Message = "", ""
		status.FinishedAt, status.RetriedAt = time.Time{}, c.now()
		status.Outputs, status.OutputArtifacts, status.Metrics = nil, nil, nil
		status.Enter(skiff.StatePending, status.RetriedAt, "")
		return nil
	})
	if err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	c.log.Info("run is retried", "run", name)
	return nil
}

// errRetried ends an execution that lingered after its run's end and whose run
// was retried meanwhile: the next one is another.
var errRetried = errors.New("the run was retried")

// reconsider decides which of a scope's tasks are kept although the run was
// retried, and makes the others begin again.
func (x *execution) reconsider(s *scope) {
	if x.run.Spec.Retries == 0 {
		return
	}
	again := map[*node]bool{}
	for _, key := range s.order {
		x.reconsiderNode(s.nodes[key], again)
	}
}

// reconsiderNode looks at a node after its upstreams; again collects those that
// are begun anew. Graphs have no cycles: the door refuses them.
func (x *execution) reconsiderNode(n *node, again map[*node]bool) bool {
	if decided, known := again[n]; known {
		return decided
	}
	anew := false
	for _, up := range n.upstream {
		anew = x.reconsiderNode(up, again) || anew
	}
	again[n] = x.renew(n, anew)
	return again[n]
}

// renew makes a task begin again where it has to, and reports whether it does.
func (x *execution) renew(n *node, upstreamAnew bool) bool {
	status := &n.task.Status
	if !n.created || status.Retries >= x.run.Spec.Retries {
		// Made or marked in this round: what it is now is what counts. Those who
		// wait for it were marked with it.
		return status.Retries >= x.run.Spec.Retries && n.created
	}
	if (status.State == skiff.StateSucceeded || status.State == skiff.StateSkipped) && !upstreamAnew && !x.lost(n.task) {
		return false
	}
	composite := n.kind == skiff.TaskDAG || n.kind == skiff.TaskLoop || n.kind == skiff.TaskIteration
	goesOn := composite && status.State != skiff.StateSucceeded && !upstreamAnew
	kept := skiff.TaskStatus{State: skiff.StatePending, Attempts: status.Attempts, Spent: status.Attempts, Retries: x.run.Spec.Retries}
	if goesOn {
		kept.Reuse = status.Reuse // of what is below it and kept
	}
	if composite && kept.Attempts > 0 {
		if goesOn {
			kept.Spent-- // the round that goes on counts
		} else {
			kept.Attempts++
		}
	}
	if n.kind == skiff.TaskImporter {
		kept.Attempts++ // its artifact is another object
	}
	n.task.Status = kept
	x.touch(n)
	return true
}
