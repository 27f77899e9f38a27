package pod

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// tb is what a *testing.T and a *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// rig is a store, a world and a controller that can be killed.
type rig struct {
	t     tb
	dir   string
	store *store.Store
	world *world
	cfg   Config

	c    *Controller
	kill context.CancelFunc
	done chan struct{}
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := openRig(t, t.TempDir(), nil, change)
	t.Cleanup(r.close)
	return r
}

func openRig(t tb, dir string, w *world, change func(*Config)) *rig {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: Kinds()})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	if w == nil {
		w = newWorld(filepath.Join(dir, "world"))
	}
	r := &rig{t: t, dir: dir, store: s, world: w}
	r.cfg = Config{
		Store: s, Backend: w, StateDir: dir, ImageBackoff: 10 * time.Millisecond, ResyncInterval: 200 * time.Millisecond,
		Node: scheduler.Node{CPUMilli: 2000, MemoryBytes: 8 << 30},
	}
	if os.Getenv("POD_TEST_LOG") != "" {
		r.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if change != nil {
		change(&r.cfg)
	}
	r.up()
	return r
}

// up starts a controller over what there is.
func (r *rig) up() {
	r.t.Helper()
	c, err := New(r.cfg)
	if err != nil {
		r.t.Fatalf("new controller: %v", err)
	}
	ctx, kill := context.WithCancel(context.Background())
	r.c, r.kill, r.done = c, kill, make(chan struct{})
	done := r.done
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			r.t.Logf("run: %v", err)
		}
	}()
}

// down kills the controller as far as a test can: at once, wherever it stands.
func (r *rig) down() {
	r.kill()
	<-r.done
}

func (r *rig) close() {
	r.down()
	r.world.machine.Close()
	if err := r.store.Close(); err != nil {
		r.t.Fatalf("close store: %v", err)
	}
}

func (r *rig) create(p *core.Pod) *core.Pod {
	r.t.Helper()
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Create, Kind: KindName, Object: p}); err != nil {
		r.t.Fatalf("create pod: %v", err)
	}
	return p
}

func (r *rig) get(name string) *core.Pod {
	p, err := store.GetAs[*core.Pod](context.Background(), r.store, store.Key{Kind: KindName, Namespace: "default", Name: name})
	if err != nil {
		return nil
	}
	return p
}

func (r *rig) change(name string, fn func(*core.Pod)) {
	r.t.Helper()
	_, err := store.ModifyAs(context.Background(), r.store, store.Key{Kind: KindName, Namespace: "default", Name: name}, func(p *core.Pod) error {
		fn(p)
		return nil
	})
	if err != nil {
		r.t.Fatalf("change pod %s: %v", name, err)
	}
}

func (r *rig) delete(name string) {
	r.t.Helper()
	key := store.Key{Kind: KindName, Namespace: "default", Name: name}
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Delete, Key: key}); err != nil {
		r.t.Fatalf("delete pod %s: %v", name, err)
	}
}

// until waits for a condition on the pod (nil once it is gone).
func (r *rig) until(name, what string, ok func(*core.Pod) bool) *core.Pod {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := r.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName}})
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	defer w.Close()
	for {
		p := r.get(name)
		if ok(p) {
			return p
		}
		if _, err := w.Next(ctx); err != nil {
			if p == nil {
				r.t.Fatalf("pod %s: waited for %s, it is gone", name, what)
			}
			r.t.Fatalf("pod %s: waited for %s, it is %s/%s: %s", name, what, p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
	}
}

func (r *rig) ended(name string) *core.Pod {
	r.t.Helper()
	return r.until(name, "its end", func(p *core.Pod) bool { return p != nil && p.Status.Phase.Terminal() })
}

func (r *rig) running(name string) *core.Pod {
	r.t.Helper()
	return r.until(name, "running", func(p *core.Pod) bool { return p != nil && p.Status.Phase == core.PodRunning })
}

// eventually waits for a condition that no watch tells of.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// history collects every version of pods that became durable.
type history struct {
	mu     sync.Mutex
	events []store.Event
	stop   func()
}

func (r *rig) record(check func(store.Event)) *history {
	ctx, cancel := context.WithCancel(context.Background())
	w, err := r.store.Watch(ctx, store.WatchOptions{Kinds: []string{KindName}})
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	h := &history{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			events, err := w.Next(ctx)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.events = append(h.events, events...)
			h.mu.Unlock()
			if check != nil {
				for _, e := range events {
					check(e)
				}
			}
		}
	}()
	h.stop = func() { cancel(); <-done; w.Close() }
	return h
}

// commits counts the versions of a pod after its creation.
func (h *history) commits(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.events {
		if e.Key.Name == name && e.Type == store.Modified {
			n++
		}
	}
	return n
}
