package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/storetest"
)

func TestExpand(t *testing.T) {
	// The cases are those that the published expansion documents.
	vars := map[string]string{"A": "a", "B": "$(A)", "EMPTY": "", "X.Y": "dot"}
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$(A)", "a"},
		{"x$(A)y$(A)", "xaya"},
		{"$$(A)", "$(A)"},
		{"$$$(A)", "$a"},
		{"$$$$(A)", "$$(A)"},
		{"$(MISSING)", "$(MISSING)"},
		{"$(EMPTY)|", "|"},
		{"$(B)", "$(A)"},
		{"$A ${A} $", "$A ${A} $"},
		{"$(A", "$(A"},
		{"$($(A)", "$($(A)"},
		{"$(X.Y)", "dot"},
		{"$$", "$"},
		{"a$", "a$"},
	}
	for _, tt := range tests {
		got := expand(tt.in, func(name string) (string, bool) { v, known := vars[name]; return v, known })
		if got != tt.want {
			t.Errorf("expand(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A) $$(A) $( $")
	f.Fuzz(func(t *testing.T, text string) {
		got := expand(text, func(string) (string, bool) { return "", false })
		if !strings.Contains(text, "$$") && got != text {
			t.Errorf("expand(%q) = %q with nothing to expand", text, got)
		}
	})
}

func TestEnvironment(t *testing.T) {
	env, _ := environment([]core.EnvVar{
		{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(C)"}, {Name: "C", Value: "3"}, {Name: "A", Value: "$(A)2"}, {Name: "D", Value: "$(A)"},
	})
	if diff := cmp.Diff([]string{"A=12", "B=1$(C)", "C=3", "D=12"}, env); diff != "" {
		t.Error(diff)
	}
}

func quantities(t *testing.T, pairs ...string) map[string]core.Quantity {
	t.Helper()
	m := map[string]core.Quantity{}
	for i := 0; i < len(pairs); i += 2 {
		q, err := core.ParseQuantity(pairs[i+1])
		if err != nil {
			t.Fatal(err)
		}
		m[pairs[i]] = q
	}
	return m
}

func TestDemand(t *testing.T) {
	container := func(requests, limits map[string]core.Quantity) core.Container {
		return core.Container{Name: "c", Resources: core.ResourceRequirements{Requests: requests, Limits: limits}}
	}
	none := container(nil, nil)
	side := container(quantities(t, "cpu", "1"), nil)
	side.RestartPolicy = "Always"
	ported := none
	ported.Ports = []core.ContainerPort{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 81}}
	tests := []struct {
		name string
		spec core.PodSpec
		want scheduler.Demand
		err  string
	}{
		{name: "defaults", spec: core.PodSpec{Containers: []core.Container{none}},
			want: scheduler.Demand{CPUMilli: DefaultCPUMilli, MemoryBytes: DefaultMemoryBytes}},
		{name: "requests before limits", spec: core.PodSpec{Containers: []core.Container{
			container(quantities(t, "cpu", "500m"), quantities(t, "cpu", "2", "memory", "1Gi"))}},
			want: scheduler.Demand{CPUMilli: 500, MemoryBytes: 1 << 30}},
		{name: "any vendor's device", spec: core.PodSpec{Containers: []core.Container{
			container(nil, quantities(t, "nvidia.com/gpu", "1")), container(nil, quantities(t, "tpu.google.com/v2", "2"))}},
			want: scheduler.Demand{CPUMilli: 200, MemoryBytes: 2 * DefaultMemoryBytes, GPUs: 3}},
		{name: "requests equal limits count once", spec: core.PodSpec{Containers: []core.Container{
			container(quantities(t, "nvidia.com/gpu", "2"), quantities(t, "nvidia.com/gpu", "2"))}},
			want: scheduler.Demand{CPUMilli: 100, MemoryBytes: DefaultMemoryBytes, GPUs: 2}},
		{name: "the greatest init container", spec: core.PodSpec{
			InitContainers: []core.Container{container(quantities(t, "cpu", "3"), nil), side, container(quantities(t, "cpu", "2500m"), nil)},
			Containers:     []core.Container{container(quantities(t, "cpu", "2"), nil)}},
			want: scheduler.Demand{CPUMilli: 3500, MemoryBytes: 2 * DefaultMemoryBytes}},
		{name: "pools and ports", spec: core.PodSpec{Containers: []core.Container{ported}, Skiff: &core.PodExtension{Pools: map[string]int64{"p": 2}}},
			want: scheduler.Demand{CPUMilli: 100, MemoryBytes: DefaultMemoryBytes, Pools: map[string]int64{"p": 2}, HostPorts: []int32{8080}}},
		{name: "a slice", spec: core.PodSpec{Containers: []core.Container{container(nil, quantities(t, "nvidia.com/mig-1g.5gb", "1"))}},
			want: scheduler.Demand{CPUMilli: 100, MemoryBytes: DefaultMemoryBytes, GPUs: 1, GPUKind: "mig-1g.5gb"}},
		{name: "half a device", spec: core.PodSpec{Containers: []core.Container{container(nil, quantities(t, "nvidia.com/gpu", "0.5"))}},
			err: "spec.containers[0].resources.nvidia.com/gpu: 0.5: devices are given out whole, want a small whole number"},
		{name: "beyond counting", spec: core.PodSpec{Containers: []core.Container{container(nil, quantities(t, "cpu", "9E"))}},
			err: "out of range"},
		{name: "negative pool", spec: core.PodSpec{Containers: []core.Container{none}, Skiff: &core.PodExtension{Pools: map[string]int64{"p": -1}}},
			err: "must not be negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Demand(&tt.spec, Defaults{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func testRun(t *testing.T, p *core.Pod, change func(*Config)) *run {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{Store: idStore{}, Backend: newWorld(filepath.Join(dir, "world")), StateDir: dir}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.launchers.Close() })
	p.UID = "uid"
	r := c.newRun(p, scheduler.Item{ID: "uid"})
	r.plan()
	return r
}

// idStore is a store that only has an id.
type idStore struct{ store.Interface }

func (idStore) ID() string { return "store" }

func TestCommand(t *testing.T) {
	image := runtime.Image{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, WorkingDir: "/image"}
	tests := []struct {
		name          string
		command, args []string
		image         runtime.Image
		pip           bool
		want          []string
		err           string
	}{
		{name: "the image's own", image: image, want: []string{"/entry", "cmd"}},
		{name: "args replace cmd", args: []string{"$(V)"}, image: image, want: []string{"/entry", "x"}},
		{name: "command replaces both", command: []string{"run", "$(V)"}, image: image, want: []string{"run", "x"}},
		{name: "command and args", command: []string{"run"}, args: []string{"$$(V)"}, image: image, want: []string{"run", "$(V)"}},
		{name: "nothing", err: "has no command"},
		{name: "prelude kept", command: []string{"sh", "-c", "pip install x && run"}, image: image, want: []string{"sh", "-c", "pip install x && run"}},
		{name: "prelude done", command: []string{"sh", "-c", "pip install x && run"}, args: []string{"a"}, image: image, pip: true, want: []string{"run", "a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := podNamed("a", tt.command...)
			p.Spec.Containers[0].Args = tt.args
			p.Spec.Containers[0].Env = []core.EnvVar{{Name: "V", Value: "x"}, {Name: "NVIDIA_VISIBLE_DEVICES", Value: "all"}}
			p.Spec.Skiff = &core.PodExtension{Environment: &core.Environment{Command: []string{"run"}}}
			r := testRun(t, p, nil)
			u := r.main[0]
			u.image = tt.image
			u.image.PipSatisfied = tt.pip
			got, err := r.command(t.Context(), u)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v", err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got.Argv); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"V=x"}, got.Env); diff != "" {
				t.Errorf("a pod without a grant asks for devices: %s", diff)
			}
		})
	}
}

// folders is a Volumes over one folder.
type folders struct{ dir string }

func (f folders) HostPath(_ context.Context, _ string, v core.Volume) (string, bool, error) {
	return f.dir, v.Artifact != nil && v.Artifact.Key == "", nil
}

func TestContainerSpec(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	one, two := int64(1000), int64(100)
	p := podNamed("a", "true")
	p.Spec.SecurityContext = &core.PodSecurityContext{RunAsUser: &one, RunAsGroup: &two}
	p.Spec.Volumes = []core.Volume{
		{Name: "root", Artifact: &core.ArtifactVolume{}},
		{Name: "out", Artifact: &core.ArtifactVolume{Key: "r/t"}},
		{Name: "claim", PersistentVolumeClaim: &core.PersistentVolumeClaimVolume{ClaimName: "data", ReadOnly: true}},
		{Name: "shm", EmptyDir: &core.EmptyDirVolume{Medium: "Memory", SizeLimit: quantities(t, "m", "1Gi")["m"]}},
		{Name: "tmp", EmptyDir: &core.EmptyDirVolume{}},
	}
	c := &p.Spec.Containers[0]
	c.Resources.Limits = quantities(t, "cpu", "64", "memory", "1Gi")
	c.VolumeMounts = []core.VolumeMount{
		{Name: "out", MountPath: "/minio/bucket/out"},
		{Name: "root", MountPath: "/minio", ReadOnly: true},
		{Name: "claim", MountPath: "/data"},
		{Name: "shm", MountPath: "/dev/shm"},
		{Name: "out", MountPath: "/sub", SubPath: "x/y"},
		{Name: "tmp", MountPath: "/scratch"},
	}
	s := storetest.Open(t, Kinds()...)
	// One that is part of something else: its volume has its name.
	claim := &core.PersistentVolumeClaim{ObjectMeta: core.ObjectMeta{Name: "data", Namespace: "default", OwnerReferences: []core.OwnerReference{{Kind: "Run", Name: "r"}}}}
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Kind: Claims, Object: claim}); err != nil {
		t.Fatal(err)
	}
	r := testRun(t, p, func(cfg *Config) {
		cfg.Store = s
		cfg.Volumes, cfg.ClampCPUMilli, cfg.Env = folders{dir}, 2000, []string{"PIP_INDEX_URL=x"}
		cfg.Mounts = []runtime.Mount{{HostPath: "/ca.pem", Path: "/etc/ca.pem", ReadOnly: true}}
	})
	if err := r.makeFolder(); err != nil {
		t.Fatal(err)
	}
	got, err := r.containerSpec(t.Context(), r.main[0])
	if err != nil {
		t.Fatal(err)
	}
	volume, err := r.c.backend.EnsureVolume(t.Context(), "default", "data")
	if err != nil {
		t.Fatal(err)
	}
	want := []runtime.Mount{
		{HostPath: "/ca.pem", Path: "/etc/ca.pem", ReadOnly: true},
		{HostPath: dir, Path: "/minio", ReadOnly: true},
		{HostPath: volume, Path: "/data", ReadOnly: true},
		{HostPath: dir, SubPath: "x/y", Path: "/sub"},
		{HostPath: filepath.Join(r.dir, scratchDir, "tmp"), Path: "/scratch"},
		{HostPath: dir, Path: "/minio/bucket/out"},
	}
	if diff := cmp.Diff(want, got.Mounts); diff != "" {
		t.Error(diff)
	}
	if got.User != "1000:100" || got.Resources.CPUMilli != 2000 || got.Resources.MemoryBytes != 1<<30 || got.Resources.ShmBytes != 1<<30 || got.Env[0] != "PIP_INDEX_URL=x" {
		t.Errorf("spec = %+v", got)
	}
	for name, vm := range map[string]core.VolumeMount{
		"writable root": {Name: "root", MountPath: "/minio"},
		"over root":     {Name: "tmp", MountPath: "/"},
		"relative":      {Name: "tmp", MountPath: "x"},
		"out of volume": {Name: "out", MountPath: "/x", SubPath: "../y"},
		"through link":  {Name: "out", MountPath: "/x", SubPath: "link/ssh"},
		"no volume":     {Name: "none", MountPath: "/x"},
	} {
		c.VolumeMounts = []core.VolumeMount{vm}
		if _, err := r.containerSpec(t.Context(), r.main[0]); err == nil {
			t.Errorf("%s: was let through", name)
		}
	}
}

func TestClearFolderKeepsLogsAndFollowsNothing(t *testing.T) {
	base := t.TempDir()
	dir, outside := filepath.Join(base, "pod"), filepath.Join(base, "outside")
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "precious"))
	for _, name := range []string{"main/log.0", "main/exit.json", "main/config.json", "main/deep/er/file", ".launch-main", ".volumes/tmp/data"} {
		write(filepath.Join(dir, name))
	}
	for _, link := range []string{"main/log.1", "main/dir", "other"} {
		if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	clearFolder(dir)
	var left []string
	err := filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(base, path)
			left = append(left, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"outside/precious", "pod/main/exit.json", "pod/main/log.0"}, left); diff != "" {
		t.Error(diff)
	}
}

func TestStartGateLetsTheMostUrgentIn(t *testing.T) {
	g := newStartGate(1)
	if err := g.enter(t.Context(), scheduler.Item{ID: "first"}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	for i, item := range []scheduler.Item{{ID: "b", Priority: 1}, {ID: "a", Priority: 1}, {ID: "urgent", Priority: 9}, {ID: "late"}} {
		wg.Go(func() {
			if g.enter(t.Context(), item) != nil {
				return
			}
			mu.Lock()
			order = append(order, item.ID)
			mu.Unlock()
			g.leave()
		})
		for waiting := 0; waiting <= i; time.Sleep(time.Millisecond) {
			g.mu.Lock()
			waiting = len(g.line)
			g.mu.Unlock()
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.enter(cancelled, scheduler.Item{ID: "gone", Priority: 100}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	g.leave()
	wg.Wait()
	if diff := cmp.Diff([]string{"urgent", "a", "b", "late"}, order); diff != "" {
		t.Error(diff)
	}
	if g.free != 1 {
		t.Errorf("%d places are free at the end, want 1", g.free)
	}
}

// goneStore is a store whose watches fall behind once.
type goneStore struct {
	store.Interface
	mu   sync.Mutex
	gone chan struct{}
}

type goneWatcher struct {
	store.Watcher
	gone <-chan struct{}
}

func (s *goneStore) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	w, err := s.Interface.Watch(ctx, opts)
	s.mu.Lock()
	defer s.mu.Unlock()
	return &goneWatcher{w, s.gone}, err
}

// Next reports nothing until the watch has fallen behind.
func (w *goneWatcher) Next(ctx context.Context) ([]store.Event, error) {
	if w.gone == nil {
		return w.Watcher.Next(ctx)
	}
	select {
	case <-w.gone:
		return nil, store.ErrGone
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func TestAWatchThatFellBehindListsAgain(t *testing.T) {
	behind := make(chan struct{})
	s := &goneStore{gone: behind}
	r := newRig(t, func(cfg *Config) {
		s.Interface, cfg.Store = cfg.Store, s
	})
	<-r.c.Ready()
	waiting := podNamed("blocked", "exit", "0")
	waiting.Spec.SchedulingGates = []core.SchedulingGate{{Name: "x"}}
	r.create(waiting)
	r.create(podNamed("a", "exit", "0"))
	s.mu.Lock()
	s.gone = nil
	s.mu.Unlock()
	close(behind)
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded {
		t.Errorf("status = %+v", got.Status)
	}
	r.delete("blocked")
	r.create(podNamed("b", "exit", "0"))
	r.ended("b")
}

// slowStore delivers what a watch has seen a little later.
type slowStore struct{ store.Interface }

type slowWatcher struct{ store.Watcher }

func (s slowStore) Watch(ctx context.Context, opts store.WatchOptions) (store.Watcher, error) {
	w, err := s.Interface.Watch(ctx, opts)
	return slowWatcher{w}, err
}

func (w slowWatcher) Next(ctx context.Context) ([]store.Event, error) {
	events, err := w.Watcher.Next(ctx)
	_ = sleep(ctx, 100*time.Millisecond)
	return events, err
}

// A watch that lags shows a pod with its claim when its run has long ended: it
// must not be taken for one that an earlier daemon left.
func TestWhatALaggingWatchShowsIsThePast(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.Store = slowStore{cfg.Store} })
	p := r.create(podNamed("a", "exit", "0"))
	q := r.create(podNamed("b", "hang"))
	r.ended("a")
	r.running("b")
	r.delete("b")
	r.until("b", "gone", func(p *core.Pod) bool { return p == nil })
	last := r.create(podNamed("c", "exit", "0")) // what comes after is behind all of it
	r.ended("c")
	r.eventually("the watch", func() bool {
		empty := make(chan bool, 1)
		r.c.post(t.Context(), func() { empty <- len(r.c.loop.done) == 0 && len(r.c.loop.pods) == 0 })
		return <-empty
	})
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for _, p := range []*core.Pod{p, q, last} {
		if n := r.world.starts[containerName(p.UID, "main", 0)]; n != 1 {
			t.Errorf("pod %s was started %d times", p.Name, n)
		}
	}
}

func TestJudge(t *testing.T) {
	record := func(reason string, code int) *launch.ExitRecord {
		return &launch.ExitRecord{Reason: reason, ExitCode: code, Message: "detail"}
	}
	tests := []struct {
		name    string
		con     runtime.Container
		reason  string
		message string
		infra   bool
	}{
		{"lost", runtime.Container{State: runtime.StateLost, Message: "why"}, ReasonLost, "container main was lost: why", true},
		{"no record", runtime.Container{State: runtime.StateExited}, ReasonLost, "left no record", true},
		{"cannot run", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonCannotRun, 127)}, launch.ReasonCannotRun, "could not run its command: detail; check the command and the image busybox", false},
		{"memory", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonOOMKilled, 137)}, launch.ReasonOOMKilled, "needed more than its memory limit of 1Gi", false},
		{"shutdown", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonShutdown, 143)}, launch.ReasonShutdown, "was ended from outside", true},
		{"somebody stopped it", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonStopped, 143)}, launch.ReasonShutdown, "was ended from outside", true},
		{"signal", runtime.Container{State: runtime.StateExited, Exit: &launch.ExitRecord{Reason: launch.ReasonError, Signal: 11, ExitCode: 139}}, launch.ReasonError, "was ended by signal 11", false},
		{"code", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonError, 2)}, launch.ReasonError, "exited with code 2: detail", false},
		{"code 0 without success", runtime.Container{State: runtime.StateExited, Exit: record(launch.ReasonError, 0)}, launch.ReasonError, "exited with code 0", false},
		{"output", runtime.Container{State: runtime.StateExited, Exit: &launch.ExitRecord{Reason: launch.ReasonError, ExitCode: 1, OutputErrors: map[string]string{"x": "too large"}}},
			launch.ReasonError, `output "x" could not be read: too large`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := podNamed("a", "x")
			limit("memory", "1Gi")(p)
			r := testRun(t, p, nil)
			tt.con.Name, tt.con.ID = r.main[0].name, "id"
			r.seen[tt.con.Name] = tt.con
			got := r.verdict()
			if got.succeeded || got.reason != tt.reason || got.infrastructure != tt.infra || !strings.Contains(got.message, tt.message) {
				t.Errorf("verdict = %+v, want %s, %q", got, tt.reason, tt.message)
			}
		})
	}
}
