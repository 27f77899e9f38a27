package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/runtime/launch/logfile"
)

// Run is one execution of a command, as a Handler sees it.
type Run struct {
	Spec           runtime.ContainerSpec
	Command        launch.Command
	Stdout, Stderr io.Writer
}

// Result is how a command ended.
type Result struct {
	ExitCode int
	// Outputs are the contents of declared outputs by name. Names that the
	// command does not declare are dropped. Where it is nil, the declared files
	// are read, by HostPath.
	Outputs map[string][]byte
	// OOMKilled says that it needed more memory than it had.
	OOMKilled bool
	Message   string
}

// Handler does what a command does. Its context ends when the container is
// stopped with force; Stopping(ctx) ends when it is asked to.
type Handler func(ctx context.Context, run Run) Result

// stopKey is the context key of Stopping.
type stopKey struct{}

// Stopping is closed when the command is asked to end, before the grace is over.
func Stopping(ctx context.Context) <-chan struct{} {
	stop, _ := ctx.Value(stopKey{}).(chan struct{})
	return stop
}

// World is where containers live. Make one with NewWorld and Close it.
type World struct {
	handler Handler
	ctx     context.Context //nolint:containedctx // The life of the containers, which outlive each call.
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	containers map[string]*container
	images     map[string]error // refs that cannot be had
	volumes    string
	feed       host.Feed[runtime.Container]
}

// NewWorld returns an empty world. dir is where volumes are made.
func NewWorld(dir string, handler Handler) *World {
	ctx, cancel := context.WithCancel(context.Background())
	return &World{
		handler: handler, ctx: ctx, cancel: cancel, volumes: dir,
		containers: map[string]*container{}, images: map[string]error{},
	}
}

// Close ends every container by force and waits for the handlers.
func (w *World) Close() {
	w.cancel()
	w.running.Wait()
}

// RefuseImage makes a reference unavailable for the reason given; nil lets it
// be had again.
func (w *World) RefuseImage(ref string, reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reason == nil {
		delete(w.images, ref)
		return
	}
	w.images[ref] = reason
}

// Kill ends a container as the loss of its launcher would: nothing is left, and
// no record. False means that there is none that runs.
func (w *World) Kill(id string) bool {
	c := w.find(id)
	return c != nil && c.lose("the launcher ended without an exit record")
}

// Shutdown ends a container as somebody else's SIGTERM would.
func (w *World) Shutdown(id string) bool {
	c := w.find(id)
	return c != nil && c.end(launch.ReasonShutdown, time.Second)
}

// Vanish removes a container from the world as if somebody had deleted it
// behind the daemon's back, whatever its state.
func (w *World) Vanish(id string) bool {
	c := w.find(id)
	if c == nil {
		return false
	}
	c.lose("the container is gone")
	w.mu.Lock()
	delete(w.containers, id)
	w.mu.Unlock()
	w.feed.Forget(id)
	return true
}

func (w *World) find(id string) *container {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.containers[id]
}

// container is one container of a World.
type container struct {
	w     *World
	spec  runtime.ContainerSpec
	hash  string
	ended chan struct{} // closed in a final state

	mu       sync.Mutex
	state    runtime.Container
	command  *launch.Command
	reason   string // why the end was asked for
	stopping chan struct{}
	asked    bool
	cancel   context.CancelFunc // ends the handler by force
	lost     bool
	released chan struct{} // closed to end a hold; nil where there is none
}

// set changes the state and publishes it; the caller holds mu.
func (c *container) set(s runtime.State) {
	c.state.State = s
	c.w.feed.Publish(c.state.ID, c.state)
	if s == runtime.StateExited || s == runtime.StateLost {
		close(c.ended)
	}
}

func (c *container) now() runtime.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// start makes it wait for a command.
func (c *container) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state.State {
	case runtime.StateCreated:
		c.set(runtime.StateWaiting)
	case runtime.StateExited, runtime.StateLost:
		return fmt.Errorf("start %s: %w", c.state.ID, runtime.ErrExited)
	}
	return nil
}

// launch runs the command once.
func (c *container) launch(cmd launch.Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.state.ID
	switch {
	case c.command != nil && c.command.ID != cmd.ID:
		return fmt.Errorf("launch in %s: it has run command %s: %w", id, c.command.ID, runtime.ErrConflict)
	case c.state.State == runtime.StateLost:
		return fmt.Errorf("launch in %s: %w", id, runtime.ErrExited)
	case c.command != nil:
		return nil
	case c.state.State == runtime.StateExited:
		return fmt.Errorf("launch in %s: %w", id, runtime.ErrExited)
	case c.state.State == runtime.StateCreated:
		return fmt.Errorf("launch in %s: it has not been started", id)
	case cmd.ID == "":
		return fmt.Errorf("launch in %s: the command has no id", id)
	}
	c.command = &cmd
	c.state.StartedAt = time.Now().UTC()
	c.stopping = make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithValue(c.w.ctx, stopKey{}, c.stopping))
	c.cancel = cancel
	c.set(runtime.StateRunning)
	c.w.running.Go(func() {
		defer cancel()
		c.run(ctx, cmd)
	})
	return nil
}

// run calls the handler and records what came of it.
func (c *container) run(ctx context.Context, cmd launch.Command) {
	logs := logfile.NewWriter(logFolder(launch.ControlDir(c.spec.PodDir, c.spec.Container)), c.spec.Log.MaxBytes)
	stdout, stderr := &stream{s: logs.Stream("stdout")}, &stream{s: logs.Stream("stderr")}
	result := Result{ExitCode: 1}
	var failed error
	for _, dir := range cmd.Directories {
		failed = errors.Join(failed, os.MkdirAll(HostPath(c.spec, dir), 0o750))
	}
	if failed == nil {
		result = c.w.handler(ctx, Run{Spec: c.spec, Command: cmd, Stdout: stdout, Stderr: stderr})
	} else {
		result.Message = failed.Error()
	}
	stdout.flush()
	stderr.flush()
	if cmd.Hold > 0 && result.ExitCode != 0 {
		c.hold(ctx, cmd, result)
	}
	written, dropped, _ := logs.Totals()
	_ = logs.Close() // what was lost is counted
	c.finish(ctx, result, launch.ExitRecord{
		CommandID: cmd.ID, StartedAt: c.now().StartedAt, LogBytes: written, LogDropped: dropped,
		Outputs: c.outputs(cmd, result),
	})
}

// hold keeps the container of a command that has failed.
func (c *container) hold(ctx context.Context, cmd launch.Command, result Result) {
	c.mu.Lock()
	if c.reason != "" || c.lost || ctx.Err() != nil {
		c.mu.Unlock()
		return
	}
	now := time.Now().UTC()
	c.state.Held = &launch.Held{
		CommandID: cmd.ID, ExitCode: result.ExitCode, Reason: launch.ReasonError, Message: result.Message, At: now, Until: now.Add(cmd.Hold),
	}
	c.released = make(chan struct{})
	released := c.released
	c.set(runtime.StateRunning)
	c.mu.Unlock()
	timer := time.NewTimer(cmd.Hold)
	defer timer.Stop()
	select {
	case <-released:
	case <-timer.C:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released, c.state.Held = nil, nil
}

// outputs are the declared ones.
func (c *container) outputs(cmd launch.Command, result Result) map[string][]byte {
	values := map[string][]byte{}
	for _, o := range cmd.Outputs {
		if result.Outputs != nil {
			if v, ok := result.Outputs[o.Name]; ok {
				values[o.Name] = v
			}
		} else if data, err := os.ReadFile(HostPath(c.spec, o.Path)); err == nil {
			values[o.Name] = data
		}
	}
	return values
}

// finish writes the exit record and the final state.
func (c *container) finish(ctx context.Context, result Result, r launch.ExitRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost {
		return
	}
	r.Version, r.FinishedAt = launch.Version, time.Now().UTC()
	r.ExitCode, r.Message = result.ExitCode, result.Message
	switch {
	case result.OOMKilled:
		r.Reason, r.ExitCode, r.Signal = launch.ReasonOOMKilled, 137, 9
		c.state.OOMKilled = true
	case c.reason != "":
		r.Reason = c.reason
		if ctx.Err() != nil {
			r.ExitCode, r.Signal = 137, 9
		} else if r.ExitCode == 0 {
			r.ExitCode = 143
		}
	case ctx.Err() != nil:
		r.Reason, r.ExitCode, r.Signal = launch.ReasonShutdown, 137, 9
	case r.ExitCode == 0:
		r.Reason = launch.ReasonCompleted
	default:
		r.Reason = launch.ReasonError
	}
	if err := saveRecord(launch.ControlDir(c.spec.PodDir, c.spec.Container), r); err != nil {
		c.state.Reason, c.state.Message = "LauncherLost", err.Error()
		c.set(runtime.StateLost)
		return
	}
	c.state.Exit, c.state.Reason, c.state.Message = &r, r.Reason, r.Message
	c.set(runtime.StateExited)
}

// end asks the command to end, and ends it by force after the grace. False
// means that nothing runs.
func (c *container) end(reason string, grace time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state.State {
	case runtime.StateWaiting:
		r := launch.ExitRecord{
			Version: launch.Version, ExitCode: 143, Reason: reason, Message: "ended before it had a command",
			FinishedAt: time.Now().UTC(),
		}
		if err := saveRecord(launch.ControlDir(c.spec.PodDir, c.spec.Container), r); err != nil {
			c.state.Message = err.Error()
			c.set(runtime.StateLost)
			return true
		}
		c.state.Exit, c.state.Reason = &r, reason
		c.set(runtime.StateExited)
		return true
	case runtime.StateRunning:
	default:
		return false
	}
	if c.released != nil {
		if !c.asked {
			c.asked = true
			close(c.released)
		}
		return true
	}
	if c.reason == "" {
		c.reason = reason
	}
	if !c.asked {
		c.asked = true
		close(c.stopping)
	}
	cancel := c.cancel
	timer := time.AfterFunc(grace, cancel)
	context.AfterFunc(c.w.ctx, func() { timer.Stop() })
	return true
}

// lose ends it without a record.
func (c *container) lose(message string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.State != runtime.StateWaiting && c.state.State != runtime.StateRunning {
		return false
	}
	c.lost = true
	if c.cancel != nil {
		c.cancel()
	}
	// The lock of a launcher that is gone, for those who read the folder.
	lock := filepath.Join(launch.ControlDir(c.spec.PodDir, c.spec.Container), launch.LockFile)
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		message += "; " + err.Error()
	}
	c.state.Reason, c.state.Message = "LauncherLost", message
	c.set(runtime.StateLost)
	return true
}

// HostPath translates a path in a container to the host's by the spec's mounts,
// the innermost first.
func HostPath(spec runtime.ContainerSpec, path string) string {
	best, length := path, -1
	for _, m := range spec.Mounts {
		rel, err := filepath.Rel(m.Path, path)
		if err == nil && filepath.IsLocal(rel) && len(m.Path) > length {
			best, length = filepath.Join(m.HostPath, m.SubPath, rel), len(m.Path)
		}
	}
	return best
}

func saveRecord(dir string, r launch.ExitRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, launch.ExitFile+".tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, launch.ExitFile))
}

// logFolder is where a container's log files are.
type logFolder string

// Create makes a log file.
func (d logFolder) Create(name string) (io.WriteCloser, error) {
	return os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Remove deletes a log file.
func (d logFolder) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

// stream is a log stream that may be written to from several goroutines.
type stream struct {
	mu sync.Mutex
	s  *logfile.Stream
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Write(time.Now(), p)
	return len(p), nil
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Flush(time.Now())
}
