package pipeline

import (
	"context"
	"errors"
	"testing"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

// retry asks for a run to be taken up again.
func (r *rig) retry(name string) {
	r.t.Helper()
	if err := r.c.Retry(context.Background(), space, name); err != nil {
		r.t.Fatalf("retry: %v", err)
	}
}

// TestRetryOfARun: what failed is begun again, what never ran is run, and the
// request outlives a controller that dies right behind it.
func TestRetryOfARun(t *testing.T) {
	for _, when := range []string{"undisturbed", "killed at once", "killed while it runs"} {
		t.Run(when, func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("simple", with("do", "until 1; hold gate"))
			r.states(r.ended(name), skiff.StateFailed, map[string]string{"step": "FAILED", "after": "SKIPPED"})
			r.retry(name)
			switch when {
			case "killed at once":
				r.down()
				r.up()
			case "killed while it runs":
				r.await("the second attempt", func() bool { return r.world.began("step") == 2 })
				r.down()
				r.up()
			}
			r.world.open("gate")
			run := r.ended(name)
			r.states(run, skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED x2", "after": "SUCCEEDED"})
			if run.Spec.Retries != 1 {
				t.Errorf("the run counts %d retries", run.Spec.Retries)
			}
			if n := r.world.began("step"); n != 2 {
				t.Errorf("the step was executed %d times", n)
			}
			if n := r.world.began("after"); n != 1 {
				t.Errorf("the step after it was executed %d times", n)
			}
			if err := r.c.Retry(t.Context(), space, name); !errors.Is(err, store.ErrConflict) {
				t.Errorf("retry of a run that succeeded: %v", err)
			}
		})
	}
}
