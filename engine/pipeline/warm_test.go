package pipeline

import (
	"context"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/store"
)

// gatedPod waits until the step after the running one has a pod whose container
// waits for its command.
func (r *rig) gatedPod(run string) *core.Pod {
	r.t.Helper()
	var found *core.Pod
	r.await("a gated pod", func() bool {
		for _, p := range r.podsOf(run) {
			if len(p.Spec.SchedulingGates) > 0 {
				found = p
			}
		}
		return found != nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	waiting := make(chan struct{})
	err := r.world.Watch(ctx, func(con runtime.Container) {
		if con.Labels[core.LabelPodUID] == found.UID && con.State == runtime.StateWaiting {
			select {
			case <-waiting:
			default:
				close(waiting)
				cancel()
			}
		}
	})
	select {
	case <-waiting:
	default:
		r.t.Fatalf("the container of %s does not wait: %v", found.Name, err)
	}
	return found
}

// gone waits until a pod is not in the store any more, nor its container.
func (r *rig) gone(p *core.Pod) {
	r.t.Helper()
	r.await("the end of "+p.Name, func() bool {
		_, err := store.GetAs[*core.Pod](context.Background(), r.store, store.Key{Kind: podsKind, Namespace: space, Name: p.Name})
		return err != nil
	})
	list, err := r.world.List(context.Background())
	if err != nil {
		r.t.Fatalf("list containers: %v", err)
	}
	for _, con := range list {
		if con.Labels[core.LabelPodUID] == p.UID {
			r.t.Fatalf("the container %s of a pod that is gone is still there, %s", con.Name, con.State)
		}
	}
}

// TestWarm: the container of a step waits while the step before runs, and the
// step then runs in it.
func TestWarm(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "undisturbed", true: "over a restart"}[restart], func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("simple", with("do", "hold gate"))
			r.held(name, "step")
			waits := r.gatedPod(name)
			if waits.Status.Claim != nil || waits.Status.Reason != waitingReason {
				t.Errorf("the pod that waits: %+v", waits.Status)
			}
			if restart {
				r.down()
				r.up()
			}
			r.world.open("gate")
			r.states(r.ended(name), skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
			if pod := r.tasks(name)["after"].Status.Pod; pod != waits.Name {
				t.Errorf("the step ran in %s, not in %s", pod, waits.Name)
			}
			ran, err := store.GetAs[*core.Pod](t.Context(), r.store, store.Key{Kind: podsKind, Namespace: space, Name: waits.Name})
			if err != nil || ran.UID != waits.UID || ran.Status.Phase != core.PodSucceeded {
				t.Errorf("the pod: %+v, %v", ran, err)
			}
			if n := r.world.began("after"); n != 1 {
				t.Errorf("the step was executed %d times", n)
			}
		})
	}
}

// TestWarmInVain: a pod that its step does not come to need goes, and the step
// is what it would have been without.
func TestWarmInVain(t *testing.T) {
	t.Run("the step before fails", func(t *testing.T) {
		r := newRig(t, nil)
		name := r.submit("simple", with("do", "hold gate; exit 3"))
		r.held(name, "step")
		waits := r.gatedPod(name)
		r.world.open("gate")
		r.states(r.ended(name), skiff.StateFailed, map[string]string{"step": "FAILED", "after": "SKIPPED"})
		r.gone(waits)
	})
	t.Run("the run is cancelled", func(t *testing.T) {
		r := newRig(t, nil)
		name := r.submit("simple", with("do", "hold never"))
		r.held(name, "step")
		waits := r.gatedPod(name)
		r.cancel(name)
		r.states(r.ended(name), skiff.StateCanceled, map[string]string{"step": "CANCELED", "after": "CANCELED"})
		r.gone(waits)
	})
	t.Run("its container ends", func(t *testing.T) {
		r := newRig(t, nil)
		name := r.submit("simple", with("do", "hold gate"))
		r.held(name, "step")
		waits := r.gatedPod(name)
		list, err := r.world.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, con := range list {
			if con.Labels[core.LabelPodUID] == waits.UID {
				r.world.machine.Kill(con.ID)
			}
		}
		r.world.open("gate")
		r.states(r.ended(name), skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
		if n := r.world.began("after"); n != 1 {
			t.Errorf("the step was executed %d times", n)
		}
	})
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "somebody deletes it", true: "somebody deletes it before a restart"}[restart], func(t *testing.T) {
			r := newRig(t, nil)
			name := r.submit("simple", with("do", "hold gate"))
			r.held(name, "step")
			waits := r.gatedPod(name)
			remove := store.Op{Verb: store.Delete, Key: store.Key{Kind: podsKind, Namespace: space, Name: waits.Name}}
			if _, err := r.store.Commit(t.Context(), remove); err != nil {
				t.Fatal(err)
			}
			if restart {
				r.down()
				r.up()
			}
			r.gone(waits)
			r.world.open("gate")
			r.states(r.ended(name), skiff.StateSucceeded, map[string]string{"step": "SUCCEEDED", "after": "SUCCEEDED"})
			if n := r.world.began("after"); n != 1 {
				t.Errorf("the step was executed %d times", n)
			}
		})
	}
}
