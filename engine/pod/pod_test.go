package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/scheduler"
)

func TestSuccess(t *testing.T) {
	r := newRig(t, nil)
	h := r.record(nil)
	defer h.stop()
	p := podNamed("a", "run", "200", "out", "x", "42")
	p.Spec.Skiff = &core.PodExtension{Outputs: []core.OutputFile{{Name: "x", Path: "/tmp/x"}}, Directories: []string{"/tmp/d"}}
	r.create(p)
	running := r.running("a")
	if running.Status.Claim == nil || running.Status.Claim.CPUMilli != DefaultCPUMilli {
		t.Errorf("a running pod has no claim: %+v", running.Status.Claim)
	}
	spec, cmd := r.world.seenSpec(containerName(p.UID, "main", 0))
	if diff := cmp.Diff(map[string]string{
		core.LabelStore: r.store.ID(), core.LabelPod: "a", core.LabelPodUID: p.UID, core.LabelContainer: "main",
		core.LabelRun: "r1", core.LabelTask: "t1",
	}, spec.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(cmd.Outputs) != 1 || cmd.Outputs[0].Path != "/tmp/x" || len(cmd.Directories) != 1 {
		t.Errorf("command carries outputs %v, directories %v", cmd.Outputs, cmd.Directories)
	}
	got := r.ended("a")
	if got.Status.Phase != core.PodSucceeded || got.Status.Claim != nil || string(got.Status.Skiff.Outputs["x"]) != "42" {
		t.Errorf("status = %+v", got.Status)
	}
	s := got.Status.ContainerStatuses[0]
	if s.Terminated == nil || s.Terminated.ExitCode != 0 || s.ImageID != "memory:busybox" || s.StartedAt.IsZero() {
		t.Errorf("container status = %+v", s)
	}
	r.eventually("the container's removal", func() bool { return len(r.world.names()) == 0 })
	r.eventually("the history", func() bool { return h.commits("a") >= 3 })
	if n := h.commits("a"); n != 3 {
		t.Errorf("%d commits for one pod, want 3", n)
	}
}

func TestShortPodTakesTwoCommits(t *testing.T) {
	r := newRig(t, nil)
	h := r.record(nil)
	defer h.stop()
	r.create(podNamed("a", "exit", "0"))
	r.ended("a")
	r.eventually("the history", func() bool { return h.commits("a") >= 2 })
	if n := h.commits("a"); n != 2 {
		t.Errorf("%d commits, want 2", n)
	}
}

func TestFailures(t *testing.T) {
	two := int64(1)
	yes := true
	tests := []struct {
		name    string
		command []string
		change  func(*core.Pod)
		images  error
		pulls   bool
		reason  string
		message string
		infra   bool
	}{
		{name: "exit code", command: []string{"exit", "3"}, reason: "Error", message: "exited with code 3"},
		{name: "image at once", images: runtime.ErrImageUnavailable, reason: ReasonImageUnavailable, message: "busybox"},
		{name: "image after tries", images: runtime.ErrImageUnavailable, pulls: true, reason: ReasonErrImagePull, message: "3 tries"},
		{name: "policy", images: runtime.ErrPolicy, reason: ReasonPolicy},
		{name: "too large", change: limit("cpu", "16"), reason: ReasonUnschedulable, message: "asks for 16 CPUs, the node has 2"},
		{name: "no gpu", change: limit("nvidia.com/gpu", "1"), reason: ReasonUnschedulable, message: "asks for 1 GPU, the node has 0"},
		{name: "half a gpu", change: limit("amd.com/gpu", "500m"), reason: ReasonInvalid, message: "given out whole"},
		{name: "mig", change: limit("nvidia.com/mig-1g.5gb", "1"), reason: ReasonUnschedulable, message: "mig-1g.5gb"},
		{name: "privileged", change: func(p *core.Pod) {
			p.Spec.Containers[0].SecurityContext = &core.SecurityContext{Privileged: &yes}
		}, reason: ReasonInvalid, message: "privileged"},
		{name: "host network", change: func(p *core.Pod) { p.Spec.HostNetwork = true }, reason: ReasonInvalid, message: "hostNetwork"},
		{name: "unknown volume", change: func(p *core.Pod) {
			p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{{Name: "nope", MountPath: "/x"}}
		}, reason: ReasonConfig, message: `volume "nope"`},
		{name: "root not allowed", change: func(p *core.Pod) {
			p.Spec.SecurityContext = &core.PodSecurityContext{RunAsNonRoot: &yes}
		}, reason: ReasonConfig, message: "runAsUser"},
		{name: "deadline", command: []string{"hang"}, change: func(p *core.Pod) { p.Spec.ActiveDeadlineSeconds = &two }, reason: ReasonDeadline, message: "limit of 1s"},
		{name: "stopped before", change: func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} }, reason: ReasonCancelled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.world.mu.Lock()
			r.world.preparesNot = !tt.pulls
			r.world.mu.Unlock()
			r.world.machine.RefuseImage("busybox", tt.images)
			r.down()
			r.up() // with the capabilities as they are now
			p := podNamed("a", tt.command...)
			if tt.change != nil {
				tt.change(p)
			}
			r.create(p)
			got := r.ended("a")
			if got.Status.Phase != core.PodFailed || got.Status.Reason != tt.reason || !strings.Contains(got.Status.Message, tt.message) {
				t.Errorf("ended %s/%s: %q, want Failed/%s: %q", got.Status.Phase, got.Status.Reason, got.Status.Message, tt.reason, tt.message)
			}
			if got.Status.Claim != nil {
				t.Error("the claim is still there")
			}
			if infra := got.Status.Skiff != nil && got.Status.Skiff.Infrastructure; infra != tt.infra {
				t.Errorf("infrastructure = %v", infra)
			}
			r.eventually("no containers", func() bool { return len(r.world.names()) == 0 })
		})
	}
}

func limit(resource, amount string) func(*core.Pod) {
	return func(p *core.Pod) {
		q, err := core.ParseQuantity(amount)
		if err != nil {
			panic(err)
		}
		p.Spec.Containers[0].Resources.Limits = map[string]core.Quantity{resource: q}
	}
}

func TestStop(t *testing.T) {
	r := newRig(t, nil)
	r.create(podNamed("a", "hang"))
	r.running("a")
	r.change("a", func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} })
	got := r.ended("a")
	if got.Status.Reason != ReasonCancelled || got.Status.ContainerStatuses[0].Terminated == nil {
		t.Errorf("status = %+v", got.Status)
	}
	r.eventually("no containers", func() bool { return len(r.world.names()) == 0 })
}

func TestDelete(t *testing.T) {
	gone := func(p *core.Pod) bool { return p == nil }
	t.Run("running", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.create(podNamed("a", "hang"))
		r.running("a")
		r.delete("a")
		r.until("a", "gone", gone)
		if names := r.world.names(); len(names) > 0 {
			t.Errorf("containers left: %v", names)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "pods", p.UID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the pod's folder is still there: %v", err)
		}
		// What it held is free again.
		r.create(podNamed("b", "exit", "0"))
		r.ended("b")
	})
	t.Run("ended", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.create(podNamed("a", "exit", "0"))
		r.ended("a")
		r.delete("a")
		r.until("a", "gone", gone)
		if _, err := os.Stat(filepath.Join(r.dir, "pods", p.UID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the pod's folder is still there: %v", err)
		}
	})
	t.Run("ended, while away", func(t *testing.T) {
		r := newRig(t, nil)
		r.create(podNamed("a", "exit", "0"))
		r.ended("a")
		r.down()
		r.delete("a")
		r.up()
		r.until("a", "gone", gone)
	})
	t.Run("waiting", func(t *testing.T) {
		r := newRig(t, nil)
		big := podNamed("a", "hang")
		limit("cpu", "2")(big)
		r.create(big)
		r.running("a")
		p := podNamed("b", "exit", "0")
		limit("cpu", "2")(p)
		r.create(p)
		r.delete("b")
		r.until("b", "gone", gone)
		r.delete("a")
		r.until("a", "gone", gone)
	})
}

func TestWaitingSentence(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a", "b"} {
		p := podNamed(name, "hang")
		limit("cpu", "1500m")(p)
		r.create(p)
		if name == "a" {
			r.running("a")
		}
	}
	got := r.until("b", "a sentence", func(p *core.Pod) bool { return p.Status.Message != "" })
	want := "waits for 1.5 CPUs: 0.5 of 2 is free, the rest is held by default/a (1.5)"
	if got.Status.Message != want || got.Status.Reason != scheduler.WaitCPU {
		t.Errorf("%s: %q, want %q", got.Status.Reason, got.Status.Message, want)
	}
	r.change("a", func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} })
	if got := r.running("b"); got.Status.Message != "" {
		t.Errorf("a running pod says %q", got.Status.Message)
	}
}

func TestGate(t *testing.T) {
	r := newRig(t, nil)
	p := podNamed("a", "exit", "1")
	p.Spec.SchedulingGates = []core.SchedulingGate{{Name: core.GateInputs}}
	r.create(p)
	r.create(podNamed("b", "exit", "0"))
	r.ended("b")
	if got := r.get("a"); got.Status.Claim != nil || got.Status.Phase.Terminal() {
		t.Errorf("a gated pod went on: %+v", got.Status)
	}
	r.change("a", func(p *core.Pod) {
		p.Spec.SchedulingGates = nil
		p.Spec.Containers[0].Command = []string{"exit", "0"}
	})
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("status = %+v", got.Status)
	}
}

func TestDevicesAreExclusive(t *testing.T) {
	r := newRig(t, func(cfg *Config) {
		cfg.Node.Devices = []scheduler.Device{
			{UUID: "GPU-0", Healthy: true, Fake: true}, {UUID: "GPU-1", Index: 1, Healthy: true, Fake: true},
		}
	})
	for i := range 6 {
		p := podNamed(fmt.Sprintf("p%d", i), "run", "30")
		limit("nvidia.com/gpu", "1")(p)
		p.Spec.Containers[0].Env = []core.EnvVar{{Name: "CUDA_VISIBLE_DEVICES", Value: "7"}}
		r.create(p)
	}
	for i := range 6 {
		if got := r.ended(fmt.Sprintf("p%d", i)); got.Status.Phase != core.PodSucceeded {
			t.Errorf("p%d: %+v", i, got.Status)
		}
	}
	if r.world.peak > 2 {
		t.Errorf("%d pods ran at once on two devices", r.world.peak)
	}
}

func TestGang(t *testing.T) {
	r := newRig(t, nil)
	member := func(name string) *core.Pod {
		p := podNamed(name, "run", "50")
		limit("cpu", "1")(p)
		p.Spec.Skiff = &core.PodExtension{Gang: "g", GangSize: 2}
		return p
	}
	r.create(member("a"))
	got := r.until("a", "a sentence", func(p *core.Pod) bool { return p.Status.Message != "" })
	if !strings.Contains(got.Status.Message, "1 of 2 members are here") {
		t.Errorf("message = %q", got.Status.Message)
	}
	r.create(member("b"))
	for _, name := range []string{"a", "b"} {
		if got := r.ended(name); got.Status.Phase != core.PodSucceeded {
			t.Errorf("%s: %+v", name, got.Status)
		}
	}
}

func TestInitAndSidecar(t *testing.T) {
	r := newRig(t, nil)
	p := podNamed("a", "run", "50", "out", "x", "1")
	p.Spec.Skiff = &core.PodExtension{Outputs: []core.OutputFile{{Name: "x", Path: "/tmp/x"}}}
	p.Spec.InitContainers = []core.Container{
		{Name: "first", Image: "busybox", Command: []string{"run", "20"}},
		{Name: "side", Image: "busybox", Command: []string{"hang"}, RestartPolicy: "Always"},
		{Name: "second", Image: "busybox", Command: []string{"exit", "0"}},
	}
	r.create(p)
	got := r.ended("a")
	if got.Status.Phase != core.PodSucceeded || string(got.Status.Skiff.Outputs["x"]) != "1" {
		t.Fatalf("status = %+v", got.Status)
	}
	for _, s := range got.Status.ContainerStatuses {
		if s.Terminated == nil {
			t.Errorf("container %s has no end", s.Name)
		}
	}
	r.eventually("no containers", func() bool { return len(r.world.names()) == 0 })

	bad := podNamed("b", "exit", "0")
	bad.Spec.InitContainers = []core.Container{{Name: "first", Image: "busybox", Command: []string{"exit", "9"}}}
	r.create(bad)
	if got := r.ended("b"); !strings.Contains(got.Status.Message, "init container first exited with code 9") {
		t.Errorf("message = %q", got.Status.Message)
	}
}

func TestRestartPolicy(t *testing.T) {
	r := newRig(t, nil)
	p := podNamed("a", "exit", "1")
	p.Spec.RestartPolicy = "OnFailure"
	r.create(p)
	got := r.until("a", "a restart", func(p *core.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if got.Status.Phase.Terminal() {
		t.Errorf("status = %+v", got.Status)
	}
	r.change("a", func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} })
	r.ended("a")
}

func TestLostContainer(t *testing.T) {
	t.Run("while running", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.create(podNamed("a", "hang"))
		r.running("a")
		r.world.vanish(containerName(p.UID, "main", 0))
		got := r.ended("a")
		if got.Status.Reason != ReasonLost || got.Status.Skiff == nil || !got.Status.Skiff.Infrastructure {
			t.Errorf("status = %+v", got.Status)
		}
	})
	t.Run("while the controller is away", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.create(podNamed("a", "hang"))
		r.running("a")
		r.down()
		r.world.vanish(containerName(p.UID, "main", 0))
		r.up()
		if got := r.ended("a"); got.Status.Reason != ReasonLost || !got.Status.Skiff.Infrastructure {
			t.Errorf("status = %+v", got.Status)
		}
	})
	t.Run("while the watch is broken", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.create(podNamed("a", "hang"))
		r.running("a")
		r.world.breakWatches()
		r.world.vanish(containerName(p.UID, "main", 0))
		if got := r.ended("a"); got.Status.Reason != ReasonLost {
			t.Errorf("status = %+v", got.Status)
		}
	})
}

func TestAdoption(t *testing.T) {
	r := newRig(t, nil)
	r.create(podNamed("a", "run", "300", "out", "x", "1"))
	r.create(podNamed("b", "run", "20"))
	r.running("a")
	r.down()
	time.Sleep(50 * time.Millisecond) // b ends with nobody there
	r.up()
	for _, name := range []string{"a", "b"} {
		if got := r.ended(name); got.Status.Phase != core.PodSucceeded {
			t.Errorf("%s: %+v", name, got.Status)
		}
	}
	r.eventually("no containers", func() bool { return len(r.world.names()) == 0 })
}

func TestOrphansAreRemovedAfterTheirGrace(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.OrphanGrace = 100 * time.Millisecond })
	r.down()
	id, err := r.world.Create(t.Context(), runtime.ContainerSpec{Name: "skiff-x-main.0", PodDir: t.TempDir(), Container: "main", Labels: map[string]string{core.LabelPodUID: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.world.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.up()
	<-r.c.Ready()
	if len(r.world.names()) == 0 {
		t.Error("removed at once")
	}
	r.eventually("the orphan's removal", func() bool { return len(r.world.names()) == 0 })
}
