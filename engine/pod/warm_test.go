package pod

import (
	"errors"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// gatedNamed is a pod whose container may wait for its command.
func gatedNamed(name string) *core.Pod {
	p := podNamed(name, "exit", "1")
	p.Finalizers = []string{core.PodFinalizer}
	p.Spec.SchedulingGates = []core.SchedulingGate{{Name: core.GateInputs}}
	return p
}

// lift gives a gated pod its command.
func (r *rig) lift(name string) {
	r.t.Helper()
	r.change(name, func(p *core.Pod) {
		p.Spec.SchedulingGates = nil
		p.Spec.Containers[0].Command = []string{"exit", "0"}
	})
}

// awaitWaiting waits until exactly these pods have a container that waits.
func (r *rig) awaitWaiting(want ...string) {
	r.t.Helper()
	var got map[string]bool
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		got = map[string]bool{}
		for _, con := range r.world.list() {
			if con.State == runtime.StateWaiting {
				got[con.Labels[core.LabelPod]] = true
			}
		}
		same := len(got) == len(want)
		for _, name := range want {
			same = same && got[name]
		}
		if same {
			return
		}
	}
	r.t.Fatalf("the containers of %v wait, want %v", got, want)
}

// TestWarmIsBounded: only so many containers wait at once; a place that becomes
// free goes to the next, and who never had one runs all the same.
func TestWarmIsBounded(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.WarmPods = 1 })
	r.create(gatedNamed("a"))
	r.awaitWaiting("a")
	r.create(gatedNamed("b"))
	r.create(gatedNamed("c"))
	r.create(podNamed("other", "exit", "0"))
	r.ended("other") // comes after them in the queue
	r.awaitWaiting("a")
	r.lift("a")
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded || got.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("a: %+v", got.Status)
	}
	r.awaitWaiting("b")
	r.lift("c")
	if got := r.ended("c"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("c: %+v", got.Status)
	}
	r.change("b", func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} })
	if got := r.ended("b"); got.Status.Phase != core.PodFailed || got.Status.Reason != ReasonCancelled {
		t.Errorf("b: %+v", got.Status)
	}
	r.awaitWaiting()
}

// TestWarmHoldsNoClaim: what waits takes nothing from those that may run.
func TestWarmHoldsNoClaim(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.WarmPods = 4 })
	waits := gatedNamed("waits")
	limit("cpu", "2")(waits) // all there is
	r.create(waits)
	r.awaitWaiting("waits")
	all := podNamed("all", "exit", "0")
	limit("cpu", "2")(all)
	r.create(all)
	if got := r.ended("all"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("all: %+v", got.Status)
	}
	r.delete("waits")
	r.until("waits", "its end", func(p *core.Pod) bool { return p == nil })
	r.awaitWaiting()
}

// TestWarmWithoutItsImage: an image that is not here is the pod's trouble when
// its turn comes, and not before.
func TestWarmWithoutItsImage(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.WarmPods, cfg.ImageTries = 4, 1 })
	p := gatedNamed("a")
	p.Spec.Containers[0].Image = "absent"
	r.world.machine.RefuseImage("absent", errors.New("no such image"))
	r.create(p)
	r.create(podNamed("other", "exit", "0"))
	r.ended("other")
	if got := r.get("a"); got.Status.Message != "" || got.Status.Phase.Terminal() {
		t.Errorf("while it waits: %+v", got.Status)
	}
	r.lift("a")
	if got := r.ended("a"); got.Status.Phase != core.PodFailed || got.Status.Reason != ReasonErrImagePull {
		t.Errorf("at its turn: %+v", got.Status)
	}
}

// TestWarmOverRestarts: a container that waits is found again, and one that was
// lifted while nobody looked gets its command.
func TestWarmOverRestarts(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.WarmPods = 4 })
	r.create(gatedNamed("a"))
	r.create(gatedNamed("b"))
	r.awaitWaiting("a", "b")
	before := r.world.names()
	r.down()
	r.lift("a")
	r.up()
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("a: %+v", got.Status)
	}
	r.awaitWaiting("b")
	r.lift("b")
	if got := r.ended("b"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("b: %+v", got.Status)
	}
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for _, name := range before {
		if n := r.world.starts[name]; n != 1 {
			t.Errorf("%s was executed %d times", name, n)
		}
	}
}

// TestDiscardWhatLives: a container that is believed to have ended, as by a late
// report of one before it that had its name, is removed all the same.
func TestDiscardWhatLives(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.WarmPods = 1 })
	r.create(gatedNamed("a"))
	r.awaitWaiting("a")
	list := r.world.list()
	for i := range list {
		list[i].State = runtime.StateExited
	}
	if !r.c.discard(t.Context(), list) || len(r.world.names()) != 0 {
		t.Errorf("still there: %v", r.world.names())
	}
	// The pod was not the one to end it, and did nothing wrong.
	got := r.ended("a")
	if got.Status.Phase != core.PodFailed || got.Status.Skiff == nil || !got.Status.Skiff.Infrastructure {
		t.Errorf("a: %+v", got.Status)
	}
}
