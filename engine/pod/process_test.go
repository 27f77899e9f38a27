package pod

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/runtime/process"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// newProcessRig is a rig over the embedded process runtime: real launchers,
// real folders, real logs.
func newProcessRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	launcher := launchtest.Build(t)
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: Kinds()})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, store: s, world: newWorld(filepath.Join(dir, "world"))}
	backend := func() runtime.Backend {
		b, err := process.New(process.Config{StateDir: dir, LauncherPath: launcher, Level: process.LevelProcess, NoCgroups: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		return b
	}
	r.cfg = Config{Store: s, StateDir: dir, Backend: backend(), Node: scheduler.Node{CPUMilli: 2000, MemoryBytes: 8 << 30}}
	r.up()
	t.Cleanup(r.close)
	return r
}

func shellPod(name, script string) *core.Pod {
	p := podNamed(name, "sh", "-c", script)
	p.Spec.Containers[0].Image = "busybox"
	return p
}

func (r *rig) log(name string, opts LogOptions) string {
	r.t.Helper()
	var b bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.c.PodLogs(ctx, "default", name, opts, &b); err != nil {
		r.t.Fatalf("read the log of %s: %v", name, err)
	}
	return b.String()
}

func TestOverProcesses(t *testing.T) {
	r := newProcessRig(t)
	p := shellPod("a", `echo one; sleep 0.1; echo $(GREETING) >&2; sleep 0.3; echo last; printf 42 > "$0"`)
	p.Spec.Containers[0].Env = []core.EnvVar{{Name: "WHO", Value: "you"}, {Name: "GREETING", Value: "hello $(WHO)"}}
	out := filepath.Join(r.dir, "out")
	p.Spec.Containers[0].Args = []string{out}
	p.Spec.Skiff = &core.PodExtension{Outputs: []core.OutputFile{{Name: "answer", Path: out}}}
	r.create(p)
	followed := make(chan string, 1)
	go func() { followed <- r.log("a", LogOptions{Follow: true, TailLines: -1}) }()
	r.running("a")
	if stats, err := r.c.Stats(t.Context(), "default", "a"); err != nil || stats.Pids == 0 {
		t.Errorf("stats = %+v, %v", stats, err)
	}
	if live, err := r.c.Usage(t.Context()); err != nil || len(live) != 1 {
		t.Errorf("usage = %+v, %v", live, err)
	}
	got := r.ended("a")
	if got.Status.Phase != core.PodSucceeded || string(got.Status.Skiff.Outputs["answer"]) != "42" {
		t.Fatalf("status = %+v", got.Status)
	}
	const want = "one\nhello you\nlast\n"
	select {
	case text := <-followed:
		if text != want {
			t.Errorf("followed log = %q, want %q", text, want)
		}
	case <-time.After(patience):
		t.Fatal("following a log does not end with the pod")
	}
	// After its end, and after the clean-up, the log is still there.
	r.eventually("the clean-up", func() bool { return r.tidied(p.UID) })
	for _, follow := range []bool{false, true} {
		if text := r.log("a", LogOptions{Follow: follow, TailLines: -1}); text != want {
			t.Errorf("log afterwards = %q, want %q", text, want)
		}
	}
	if text := r.log("a", LogOptions{TailLines: 1, Stream: "stdout"}); text != "last\n" {
		t.Errorf("tail = %q", text)
	}
	if text := r.log("a", LogOptions{TailLines: 1, Timestamps: true}); !strings.HasSuffix(text, " last\n") || len(text) < 30 {
		t.Errorf("with time = %q", text)
	}
}

// tidied reports whether nothing is left of an ended pod but its folder.
func (r *rig) tidied(uid string) bool {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.c.runs[uid] == nil && r.c.leftover[uid] == nil
}

func TestAFailureSaysItsLastWords(t *testing.T) {
	r := newProcessRig(t)
	r.create(shellPod("a", `echo fine; echo "ValueError: bad input" >&2; exit 3`))
	got := r.ended("a")
	if want := "container main exited with code 3: ValueError: bad input"; got.Status.Message != want {
		t.Errorf("message = %q, want %q", got.Status.Message, want)
	}
}

func TestProcessesSurviveTheController(t *testing.T) {
	r := newProcessRig(t)
	r.create(shellPod("a", `echo begun; sleep 0.4; echo done`))
	r.running("a")
	r.down()
	r.up()
	if got := r.ended("a"); got.Status.Phase != core.PodSucceeded {
		t.Fatalf("status = %+v", got.Status)
	}
	if text := r.log("a", LogOptions{TailLines: -1}); text != "begun\ndone\n" {
		t.Errorf("log = %q", text)
	}
}

func TestAnUnknownImageIsRefusedAtOnce(t *testing.T) {
	r := newProcessRig(t)
	p := shellPod("a", "true")
	p.Spec.Containers[0].Image = "example.org/nobody/knows:1"
	r.create(p)
	if got := r.ended("a"); got.Status.Reason != ReasonImageUnavailable || !strings.Contains(got.Status.Message, "nobody/knows") {
		t.Errorf("status = %+v", got.Status)
	}
}

// BenchmarkPod is what one no-op pod costs, from its creation to its end being
// durable, over the embedded process runtime.
func BenchmarkPod(b *testing.B) {
	r := newProcessRig(b)
	w, err := r.store.Watch(b.Context(), store.WatchOptions{Kinds: []string{KindName}})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	n := 0
	for b.Loop() {
		n++
		r.create(shellPod(fmt.Sprintf("p%d", n), "true"))
		for over := false; !over; {
			events, err := w.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range events {
				over = over || e.Key.Name == fmt.Sprintf("p%d", n) && e.Object.(*core.Pod).Status.Phase.Terminal()
			}
		}
	}
}
