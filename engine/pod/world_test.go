package pod

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/memory"
)

// world is the in-memory backend, which survives controllers, with what these
// tests want to know and to break. Its commands: "exit N", "run MS", "hang",
// "out NAME VALUE", in any number.
type world struct {
	*memory.Backend
	machine *memory.World

	mu          sync.Mutex
	completions map[string]int // commands that ran to their own end, by id
	starts      map[string]int // commands that were started, by id
	specs       map[string]runtime.ContainerSpec
	commands    map[string]launch.Command
	running     int
	peak        int
	preparesNot bool // like a backend that has no images to fetch
	broken      chan struct{}
	// faults decides whether an operation fails before or after it was done.
	faults func(op string) (before, after bool)
}

var _ runtime.Backend = (*world)(nil)

func newWorld(dir string) *world {
	w := &world{
		completions: map[string]int{}, starts: map[string]int{},
		specs: map[string]runtime.ContainerSpec{}, commands: map[string]launch.Command{}, broken: make(chan struct{}),
	}
	w.machine = memory.NewWorld(dir, w.execute)
	w.Backend = memory.New(memory.Config{World: w.machine, Faults: memory.Faults{
		Before: func(_ context.Context, method, _ string) error {
			if before, _ := w.fault(method); before {
				return fmt.Errorf("%s: %w", method, runtime.ErrUnavailable)
			}
			return nil
		},
		After: func(_ context.Context, method, _ string) error {
			if _, after := w.fault(method); after {
				return fmt.Errorf("%s: the reply was lost: %w", method, runtime.ErrUnavailable)
			}
			return nil
		},
	}})
	return w
}

func (w *world) fault(op string) (before, after bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.faults == nil {
		return false, false
	}
	return w.faults(op)
}

// perfect is the same machine without faults.
func (w *world) perfect() *memory.Backend { return memory.New(memory.Config{World: w.machine}) }

// execute is a command's life.
func (w *world) execute(ctx context.Context, run memory.Run) memory.Result {
	w.mu.Lock()
	w.starts[run.Command.ID]++
	w.specs[run.Spec.Name], w.commands[run.Spec.Name] = run.Spec, run.Command
	w.running++
	w.peak = max(w.peak, w.running)
	w.mu.Unlock()
	result := memory.Result{Outputs: map[string][]byte{}}
	var delay time.Duration
	for args := run.Command.Argv; len(args) > 0; {
		switch args[0] {
		case "exit":
			result.ExitCode, _ = strconv.Atoi(args[1])
			args = args[2:]
		case "run":
			ms, _ := strconv.Atoi(args[1])
			delay = time.Duration(ms) * time.Millisecond
			args = args[2:]
		case "hang":
			delay = time.Hour
			args = args[1:]
		default: // out
			result.Outputs[args[1]] = []byte(args[2])
			args = args[3:]
		}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	whole := false
	select {
	case <-timer.C:
		whole = true
	case <-memory.Stopping(ctx):
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if whole {
		w.completions[run.Command.ID]++
	}
	return result
}

// Capabilities says whether this backend fetches images.
func (w *world) Capabilities(ctx context.Context) (runtime.Capabilities, error) {
	caps, err := w.Backend.Capabilities(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	caps.Images = !w.preparesNot
	return caps, err
}

// Watch can be broken.
func (w *world) Watch(ctx context.Context, fn func(runtime.Container)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w.mu.Lock()
	broken := w.broken
	w.mu.Unlock()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-broken:
			cancel(runtime.ErrUnavailable)
		case <-done:
		}
	}()
	return w.Backend.Watch(ctx, fn)
}

// breakWatches ends every watch, as when the engine restarts.
func (w *world) breakWatches() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.broken)
	w.broken = make(chan struct{})
}

func (w *world) list() []runtime.Container {
	list, err := w.perfect().List(context.Background())
	if err != nil {
		panic(err)
	}
	return list
}

func (w *world) names() []string {
	var names []string
	for _, con := range w.list() {
		names = append(names, con.Name)
	}
	return names
}

// vanish is somebody's "docker rm -f".
func (w *world) vanish(name string) {
	for _, con := range w.list() {
		if con.Name == name {
			w.machine.Vanish(con.ID)
		}
	}
}

// randomFaults fails operations at random, before or after they are done. The
// caller holds the world's lock.
func randomFaults(rng *rand.Rand, percent int) func(string) (bool, bool) {
	return func(string) (bool, bool) { return rng.IntN(100) < percent, rng.IntN(100) < percent }
}

// seenSpec is what a container that ran was made from, and its command.
func (w *world) seenSpec(name string) (runtime.ContainerSpec, launch.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.specs[name], w.commands[name]
}

func podNamed(name string, command ...string) *core.Pod {
	return &core.Pod{
		ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{core.LabelRun: "r1", core.LabelTask: "t1"}},
		Spec:       core.PodSpec{RestartPolicy: "Never", Containers: []core.Container{{Name: "main", Image: "busybox", Command: command}}},
	}
}
