package pod

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// TestChaos lets everything go wrong that may: operations fail before or after
// they were done, containers vanish, watches break, and the controller is
// killed at random moments. Whatever happens, every pod ends, none runs twice
// to completion, no unit is claimed twice, and nothing is left over.
func TestChaos(t *testing.T) {
	folder, round := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		round++
		dir := filepath.Join(folder, fmt.Sprint(round))
		defer func() { _ = os.RemoveAll(dir) }()
		w := newWorld(filepath.Join(dir, "world"))
		w.faults = randomFaults(rand.New(rand.NewPCG(seed, 2)), rapid.IntRange(0, 15).Draw(t, "faults"))
		r := openRig(t, dir, w, func(cfg *Config) {
			cfg.Node.Devices = []scheduler.Device{{UUID: "GPU-0", Healthy: true}, {UUID: "GPU-1", Index: 1, Healthy: true}}
			cfg.Node.Pools = map[string]int64{"license": 1}
			cfg.WarmPods = rapid.IntRange(0, 3).Draw(t, "warm")
		})
		defer r.close()
		books := newBooks(r.cfg.Node)
		h := r.record(books.check)
		defer h.stop()

		pods := rapid.IntRange(1, 8).Draw(t, "pods")
		for i := range pods {
			r.create(chaosPod(t, i))
		}
		steps := rapid.IntRange(1, 12).Draw(t, "steps")
		for range steps {
			time.Sleep(time.Duration(rng.IntN(15)) * time.Millisecond)
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 5:
				meddle(r, fmt.Sprintf("p%d", rng.IntN(pods)), func(p *core.Pod) { p.Spec.SchedulingGates = nil })
			case 0, 1:
				r.down()
				r.up()
			case 2:
				if names := w.names(); len(names) > 0 {
					w.vanish(names[rng.IntN(len(names))])
				}
			case 3:
				w.breakWatches()
			case 4:
				name := fmt.Sprintf("p%d", rng.IntN(pods))
				switch rng.IntN(3) {
				case 0:
					meddle(r, name, func(p *core.Pod) { p.Spec.Skiff = &core.PodExtension{Stop: true} })
				case 1:
					meddle(r, name, func(p *core.Pod) { p.Labels = map[string]string{"touched": fmt.Sprint(rng.Int())} })
				default:
					key := store.Key{Kind: KindName, Namespace: "default", Name: name}
					_, _ = r.store.Commit(context.Background(), store.Op{Verb: store.Delete, Key: key})
				}
			}
		}
		w.mu.Lock()
		w.faults = nil
		w.mu.Unlock()
		for i := range pods {
			meddle(r, fmt.Sprintf("p%d", i), func(p *core.Pod) { p.Spec.SchedulingGates = nil })
		}
		for i := range pods {
			r.until(fmt.Sprintf("p%d", i), "its end", func(p *core.Pod) bool {
				return p == nil || (p.Status.Phase.Terminal() && p.DeletionTimestamp == nil)
			})
		}
		r.eventually("no containers", func() bool { return len(w.names()) == 0 })
		r.eventually("no claims", func() bool {
			snap, err := r.c.Snapshot(context.Background())
			return err == nil && len(snap.Holders) == 0 && len(snap.Queue) == 0
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		for id, n := range w.completions {
			if n > 1 {
				t.Fatalf("%s ran %d times to completion", id, n)
			}
		}
		for i := range pods {
			p := r.get(fmt.Sprintf("p%d", i))
			if p == nil {
				continue // deleted
			}
			if p.Status.Phase == core.PodSucceeded && w.completions[containerName(p.UID, "main", 0)] != 1 {
				t.Fatalf("%s succeeded and never ran", p.Name)
			}
			if p.Status.Claim != nil {
				t.Fatalf("%s has ended and holds a claim", p.Name)
			}
			if p.Status.Phase == core.PodFailed && p.Status.Message == "" {
				t.Fatalf("%s failed with %s and does not say why", p.Name, p.Status.Reason)
			}
		}
		if text := books.problem(); text != "" {
			t.Fatalf("%s", text)
		}
	})
}

func chaosPod(t *rapid.T, i int) *core.Pod {
	p := podNamed(fmt.Sprintf("p%d", i), "run", fmt.Sprint(rapid.IntRange(0, 40).Draw(t, "ms")), "exit", fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "code")))
	switch rapid.IntRange(0, 3).Draw(t, "demand") {
	case 1:
		limit("nvidia.com/gpu", fmt.Sprint(rapid.IntRange(1, 2).Draw(t, "gpus")))(p)
	case 2:
		limit("cpu", "1500m")(p)
	case 3:
		p.Spec.Skiff = &core.PodExtension{Pools: map[string]int64{"license": 1}}
	}
	if rapid.IntRange(0, 2).Draw(t, "gated") == 1 {
		p.Finalizers = []string{core.PodFinalizer}
		p.Spec.SchedulingGates = []core.SchedulingGate{{Name: core.GateInputs}}
	}
	if rapid.Bool().Draw(t, "init") {
		p.Spec.InitContainers = []core.Container{{Name: "first", Image: "busybox", Command: []string{"run", "3"}}}
	}
	return p
}

// meddle changes a pod as its owner may at any moment.
func meddle(r *rig, name string, change func(*core.Pod)) {
	key := store.Key{Kind: KindName, Namespace: "default", Name: name}
	_, _ = store.ModifyAs(context.Background(), r.store, key, func(p *core.Pod) error {
		change(p)
		return nil
	})
}

// books adds up the claims as they become durable.
type books struct {
	mu     sync.Mutex
	node   scheduler.Node
	claims map[string]*core.Claim
	bad    []string
}

func newBooks(node scheduler.Node) *books {
	return &books{node: node, claims: map[string]*core.Claim{}}
}

func (b *books) check(e store.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := e.Object.(*core.Pod)
	if delete(b.claims, p.UID); e.Type != store.Deleted && p.Status.Claim != nil {
		b.claims[p.UID] = p.Status.Claim
	}
	var cpu, mem, license int64
	owner := map[string]bool{}
	for _, claim := range b.claims {
		cpu += claim.CPUMilli
		mem += claim.MemoryBytes
		license += claim.Pools["license"]
		for _, uuid := range claim.GPUs {
			if owner[uuid] {
				b.bad = append(b.bad, fmt.Sprintf("revision %d: device %s is claimed twice", e.Revision, uuid))
			}
			owner[uuid] = true
		}
	}
	if cpu > b.node.CPUMilli || mem > b.node.MemoryBytes || license > b.node.Pools["license"] {
		b.bad = append(b.bad, fmt.Sprintf("revision %d: claims of %d mCPU, %d bytes, %d licenses exceed the node", e.Revision, cpu, mem, license))
	}
}

func (b *books) problem() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.bad, "\n")
}
