package pod

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// world is a machine with a container engine that survives controllers. Its
// commands: "exit N", "run MS [N]", "hang", "out NAME VALUE".
type world struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer // by name
	watchers   map[*fakeWatcher]bool
	next       int
	images     map[string]error // what PrepareImage says; absent is fine
	pulls      bool
	// completions counts commands that ran to their own end, by command id.
	completions map[string]int
	starts      map[string]int // launches by command id
	running     int
	peak        int
	wg          sync.WaitGroup

	// faults decides, before an operation, whether it fails before or after it
	// was done; nil means never.
	faults func(op string) (before, after bool)
}

type fakeContainer struct {
	runtime.Container
	spec     runtime.ContainerSpec
	cmd      launch.Command
	launched bool
	stop     chan struct{}
	stopped  bool
}

type fakeWatcher struct {
	mu    sync.Mutex
	queue []runtime.Container
	bell  chan struct{}
	fail  chan struct{}
}

func (w *fakeWatcher) push(con runtime.Container) {
	w.mu.Lock()
	w.queue = append(w.queue, con)
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func newWorld() *world {
	return &world{
		containers: map[string]*fakeContainer{}, watchers: map[*fakeWatcher]bool{}, images: map[string]error{},
		completions: map[string]int{}, starts: map[string]int{},
	}
}

var _ runtime.Backend = (*world)(nil)

// op runs fn as one operation of the engine, with what faults ordain.
func (w *world) op(ctx context.Context, name string, fn func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before, after := false, false
	if w.faults != nil {
		before, after = w.faults(name)
	}
	if before {
		return fmt.Errorf("%s: %w", name, runtime.ErrUnavailable)
	}
	if err := fn(); err != nil {
		return err
	}
	if after {
		return fmt.Errorf("%s: the reply was lost: %w", name, runtime.ErrUnavailable)
	}
	return nil
}

func (w *world) tell(c *fakeContainer) {
	for watcher := range w.watchers {
		watcher.push(c.Container)
	}
}

func (w *world) byID(id string) (*fakeContainer, error) {
	for _, c := range w.containers {
		if c.ID == id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
}

func (w *world) Name() string { return "fake" }

func (w *world) Capabilities(context.Context) (runtime.Capabilities, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return runtime.Capabilities{Images: w.pulls}, nil
}

func (w *world) Inventory(context.Context) (runtime.Inventory, error) {
	return runtime.Inventory{CPUMilli: 2000, MemoryBytes: 8 << 30}, nil
}

func (w *world) PrepareImage(ctx context.Context, req runtime.ImageRequest, _ func(runtime.ImageProgress)) (runtime.Image, error) {
	var image runtime.Image
	err := w.op(ctx, "image", func() error {
		image = runtime.Image{ID: req.Ref, Digest: "sha256:" + req.Ref, Cmd: []string{"exit", "0"}, PipSatisfied: len(req.Pip) > 0}
		return w.images[req.Ref]
	})
	return image, err
}

func (w *world) Create(ctx context.Context, spec runtime.ContainerSpec) (id string, err error) {
	err = w.op(ctx, "create", func() error {
		if c := w.containers[spec.Name]; c != nil {
			id = c.ID
			return nil
		}
		w.next++
		c := &fakeContainer{spec: spec, stop: make(chan struct{})}
		c.Container = runtime.Container{ID: "id" + strconv.Itoa(w.next), Name: spec.Name, Labels: spec.Labels, State: runtime.StateCreated}
		w.containers[spec.Name] = c
		id = c.ID
		w.tell(c)
		return nil
	})
	return id, err
}

func (w *world) Start(ctx context.Context, id string) error {
	return w.op(ctx, "start", func() error {
		c, err := w.byID(id)
		if err != nil {
			return err
		}
		switch c.State {
		case runtime.StateCreated:
			c.State = runtime.StateWaiting
			w.tell(c)
		case runtime.StateExited, runtime.StateLost:
			return runtime.ErrExited
		}
		return nil
	})
}

func (w *world) Launch(ctx context.Context, id string, cmd launch.Command) error {
	return w.op(ctx, "launch", func() error {
		c, err := w.byID(id)
		switch {
		case err != nil:
			return err
		case c.launched:
			return nil
		case c.State != runtime.StateWaiting:
			return runtime.ErrExited
		}
		c.launched, c.cmd = true, cmd
		c.State, c.StartedAt = runtime.StateRunning, time.Now()
		w.starts[cmd.ID]++
		w.running++
		w.peak = max(w.peak, w.running)
		w.tell(c)
		w.wg.Go(func() { w.execute(c) })
		return nil
	})
}

// execute is the command's life.
func (w *world) execute(c *fakeContainer) {
	code, delay, outputs := 0, time.Duration(0), map[string][]byte{}
	for args := c.cmd.Argv; len(args) > 0; {
		switch args[0] {
		case "exit":
			code, _ = strconv.Atoi(args[1])
			args = args[2:]
		case "run":
			ms, _ := strconv.Atoi(args[1])
			delay = time.Duration(ms) * time.Millisecond
			args = args[2:]
		case "hang":
			delay = time.Hour
			args = args[1:]
		case "out":
			outputs[args[1]] = []byte(args[2])
			args = args[3:]
		default:
			code, args = 127, nil
		}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	stopped := false
	select {
	case <-timer.C:
	case <-c.stop:
		stopped = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if w.containers[c.Name] != c {
		return // removed by force: nothing is left of it
	}
	record := &launch.ExitRecord{CommandID: c.cmd.ID, ExitCode: code, StartedAt: c.StartedAt, FinishedAt: time.Now(), Reason: launch.ReasonCompleted, Outputs: outputs}
	switch {
	case stopped:
		record.ExitCode, record.Reason = 143, launch.ReasonStopped
	case code == 127:
		record.Reason = launch.ReasonCannotRun
	case code != 0:
		record.Reason = launch.ReasonError
	}
	if !stopped {
		w.completions[c.cmd.ID]++
	}
	c.State, c.Exit = runtime.StateExited, record
	w.tell(c)
}

func (w *world) Stop(ctx context.Context, id string, _ time.Duration) error {
	var c *fakeContainer
	err := w.op(ctx, "stop", func() (err error) {
		if c, err = w.byID(id); err != nil {
			return err
		}
		switch {
		case c.State == runtime.StateWaiting || c.State == runtime.StateCreated:
			c.State = runtime.StateExited
			c.Exit = &launch.ExitRecord{ExitCode: 143, Reason: launch.ReasonStopped, FinishedAt: time.Now()}
			w.tell(c)
		case c.State == runtime.StateRunning && !c.stopped:
			c.stopped = true
			close(c.stop)
		}
		return nil
	})
	if c == nil {
		return err
	}
	for {
		w.mu.Lock()
		over := c.State == runtime.StateExited || w.containers[c.Name] != c
		w.mu.Unlock()
		if over {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) Remove(ctx context.Context, id string) error {
	return w.op(ctx, "remove", func() error {
		c, err := w.byID(id)
		if err != nil {
			return nil
		}
		if c.State == runtime.StateRunning || c.State == runtime.StateWaiting {
			return errors.New("container still runs")
		}
		delete(w.containers, c.Name)
		return nil
	})
}

// vanish is somebody's "docker rm -f".
func (w *world) vanish(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[name]
	if c == nil {
		return
	}
	delete(w.containers, name)
	if c.State == runtime.StateRunning && !c.stopped {
		c.stopped = true
		close(c.stop)
	}
	gone := *c
	gone.State, gone.Exit, gone.Reason, gone.Message = runtime.StateLost, nil, "Removed", "it was removed by somebody else"
	w.tell(&gone)
}

func (w *world) List(ctx context.Context) (list []runtime.Container, err error) {
	err = w.op(ctx, "list", func() error {
		for _, c := range w.containers {
			list = append(list, c.Container)
		}
		return nil
	})
	return list, err
}

func (w *world) Watch(ctx context.Context, fn func(runtime.Container)) error {
	watcher := &fakeWatcher{bell: make(chan struct{}, 1), fail: make(chan struct{})}
	w.mu.Lock()
	for _, c := range w.containers {
		watcher.push(c.Container)
	}
	w.watchers[watcher] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.watchers, watcher)
		w.mu.Unlock()
	}()
	for {
		watcher.mu.Lock()
		queue := watcher.queue
		watcher.queue = nil
		watcher.mu.Unlock()
		for _, con := range queue {
			fn(con)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-watcher.fail:
			return runtime.ErrUnavailable
		case <-watcher.bell:
		}
	}
}

// breakWatches ends every watch, as when the engine restarts.
func (w *world) breakWatches() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for watcher := range w.watchers {
		delete(w.watchers, watcher)
		close(watcher.fail)
	}
}

func (w *world) Exec(context.Context, string, runtime.ExecRequest) (int, error) { return 0, nil }

func (w *world) Dial(context.Context, string, int) (net.Conn, error) {
	return nil, runtime.ErrNotSupported
}

func (w *world) Stats(_ context.Context, id string) (runtime.Stats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.byID(id); err != nil {
		return runtime.Stats{}, err
	}
	return runtime.Stats{At: time.Now(), CPUNanos: 1, MemoryBytes: 2, Pids: 3}, nil
}

func (w *world) EnsureVolume(_ context.Context, namespace, name string) (string, error) {
	return "/volumes/" + namespace + "/" + name, nil
}

func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.containers {
		names = append(names, name)
	}
	return names
}

// randomFaults fails operations at random, before or after they are done.
func randomFaults(rng *rand.Rand, percent int) func(string) (bool, bool) {
	var mu sync.Mutex
	return func(string) (bool, bool) {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(100) < percent, rng.IntN(100) < percent
	}
}

// specOf returns what a container was made from.
func (w *world) specOf(name string) (runtime.ContainerSpec, launch.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.containers[name]; c != nil {
		return c.spec, c.cmd
	}
	return runtime.ContainerSpec{}, launch.Command{}
}

func podNamed(name string, command ...string) *core.Pod {
	return &core.Pod{
		ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{core.LabelRun: "r1", core.LabelTask: "t1"}},
		Spec:       core.PodSpec{RestartPolicy: "Never", Containers: []core.Container{{Name: "main", Image: "busybox", Command: command}}},
	}
}
