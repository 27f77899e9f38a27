package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// Harness is one backend under test, on a state of its own.
type Harness struct {
	Backend runtime.Backend
	// NewPodDir makes a pod's folder where the backend wants it.
	NewPodDir func(t *testing.T) string
	// Restart gives another Backend on the same state, as after a daemon that
	// was killed. The one before it is not used any more.
	Restart func(t *testing.T) runtime.Backend
	// Image runs /bin/sh with the usual small tools; it is at hand.
	Image string
	// Python is an image with python3; empty where there is none, and the
	// tests that need it are left out.
	Python string
	// UnknownImage cannot be had.
	UnknownImage string
	// Processes: commands are real processes on this machine. A backend without
	// them interprets what Action returns.
	Processes bool
	// SignalLauncher sends a signal to a container's launcher from outside, as
	// the kernel or an engine that goes down would.
	SignalLauncher func(t *testing.T, id string, sig syscall.Signal)
	// Users: User in a spec is honoured (a launcher that may change its user).
	Users bool
	// Timeout bounds each wait; 0 means 30 seconds.
	Timeout time.Duration
}

// Action says what one of the suite's simple commands does, for backends
// without processes: a verb and its arguments. The verbs are exit CODE, sleep
// SECONDS, write PATH TEXT, append PATH TEXT and say TEXT. Paths are the
// container's own.
func Action(cmd launch.Command) (verb string, args []string, ok bool) {
	if len(cmd.Argv) < 4 || cmd.Argv[1] != "-c" {
		return "", nil, false
	}
	return cmd.Argv[3], cmd.Argv[4:], true
}

// scripts are what the verbs mean to a shell.
var scripts = map[string]string{
	"exit":   `exit "$1"`,
	"sleep":  `exec sleep "$1"`,
	"write":  `printf %s "$2" > "$1"`,
	"append": `printf '%s\n' "$2" >> "$1"`,
	"say":    `echo "$1"`,
}

// action builds a simple command.
func action(id, verb string, args ...string) launch.Command {
	return launch.Command{ID: id, Argv: append([]string{"/bin/sh", "-c", scripts[verb], verb}, args...)}
}

// script builds a command that needs a shell.
func script(id, text string) launch.Command {
	return launch.Command{ID: id, Argv: []string{"/bin/sh", "-c", text}}
}

// fixture is what each test works with.
type fixture struct {
	*testing.T
	h    *Harness
	b    runtime.Backend
	caps runtime.Capabilities
	img  runtime.Image
	made []string
}

func newFixture(t *testing.T, h *Harness) *fixture {
	t.Helper()
	f := &fixture{T: t, h: h, b: h.Backend}
	caps, err := f.b.Capabilities(f.ctx())
	if err != nil {
		t.Fatalf("capabilities: %v", err)
	}
	f.caps = caps
	f.img = f.image(h.Image)
	t.Cleanup(f.cleanUp)
	return f
}

// cleanUp ends and removes whatever the test made.
func (f *fixture) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout())
	defer cancel()
	for _, id := range f.made {
		if err := f.b.Stop(ctx, id, 0); err != nil && !errors.Is(err, runtime.ErrNotFound) {
			f.Errorf("stop %s at the end: %v", id, err)
		}
		if err := f.b.Remove(ctx, id); err != nil {
			f.Errorf("remove %s at the end: %v", id, err)
		}
	}
}

func (f *fixture) timeout() time.Duration {
	if f.h.Timeout > 0 {
		return f.h.Timeout
	}
	return 30 * time.Second
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(f.Context(), f.timeout())
	f.Cleanup(cancel)
	return ctx
}

// check ends the test where err is not nil.
func (f *fixture) check(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", what, err)
	}
}

func (f *fixture) image(ref string) runtime.Image {
	f.Helper()
	img, err := f.b.PrepareImage(f.ctx(), runtime.ImageRequest{Ref: ref, Policy: runtime.PullIfNotPresent}, nil)
	if err != nil {
		f.Fatalf("prepare image %s: %v", ref, err)
	}
	return img
}

// spec describes a new container whose pod has a writable folder at f.out.
func (f *fixture) spec() runtime.ContainerSpec {
	f.Helper()
	pod := f.h.NewPodDir(f.T)
	out := filepath.Join(pod, "out")
	if err := os.MkdirAll(out, 0o777); err != nil {
		f.Fatal(err)
	}
	if err := os.Chmod(out, 0o777); err != nil {
		f.Fatal(err)
	}
	uid := uuid.NewString()
	name := fmt.Sprintf("skiff-test-%s-main-0", uid[:13])
	s := runtime.ContainerSpec{
		Name: name, Labels: map[string]string{"skiff.dev/pod": uid}, Image: f.img,
		PodDir: pod, Container: "main", StopGrace: 5 * time.Second,
	}
	s.Mounts = []runtime.Mount{{HostPath: out, Path: f.out(s)}}
	return s
}

// out is where a container sees its writable folder.
func (f *fixture) out(s runtime.ContainerSpec) string {
	if f.caps.Mounts {
		return "/minio/out"
	}
	return filepath.Join(s.PodDir, "out")
}

// result reads a file of the writable folder.
func (f *fixture) result(s runtime.ContainerSpec, name string) string {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(s.PodDir, "out", name))
	f.check("read result", err)
	return string(data)
}

func (f *fixture) create(s runtime.ContainerSpec) string {
	f.Helper()
	id, err := f.b.Create(f.ctx(), s)
	f.check("create", err)
	f.made = append(f.made, id)
	return id
}

func (f *fixture) start(s runtime.ContainerSpec) string {
	f.Helper()
	id := f.create(s)
	f.check("start", f.b.Start(f.ctx(), id))
	return id
}

func (f *fixture) launch(s runtime.ContainerSpec, cmd launch.Command) string {
	f.Helper()
	id := f.start(s)
	f.check("launch", f.b.Launch(f.ctx(), id, cmd))
	return id
}

// run runs a command to its end and returns the container as the backend reports it.
func (f *fixture) run(s runtime.ContainerSpec, cmd launch.Command) runtime.Container {
	f.Helper()
	return f.end(f.launch(s, cmd))
}

// record runs a command and returns its exit record.
func (f *fixture) record(s runtime.ContainerSpec, cmd launch.Command) launch.ExitRecord {
	f.Helper()
	c := f.run(s, cmd)
	if c.State != runtime.StateExited || c.Exit == nil {
		f.Fatalf("the container is %s (%s %s), without a record", c.State, c.Reason, c.Message)
	}
	return *c.Exit
}

// end waits for a container's end.
func (f *fixture) end(id string) runtime.Container {
	f.Helper()
	return f.await(id, runtime.StateExited, runtime.StateLost)
}

// errSeen ends a watch that has seen what it was for.
var errSeen = errors.New("seen")

// await watches until the container is in one of the states.
func (f *fixture) await(id string, states ...runtime.State) runtime.Container {
	f.Helper()
	ctx, cancel := context.WithCancelCause(f.ctx())
	defer cancel(nil)
	var found, last runtime.Container
	err := f.b.Watch(ctx, func(c runtime.Container) {
		if c.ID != id {
			return
		}
		last = c
		for _, s := range states {
			if c.State == s && found.ID == "" {
				found = c
				cancel(errSeen)
			}
		}
	})
	if !errors.Is(err, errSeen) {
		f.Fatalf("wait for %v: %v; the container is %s", states, err, last.State)
	}
	return found
}

// find lists one container.
func (f *fixture) find(id string) (runtime.Container, bool) {
	f.Helper()
	all, err := f.b.List(f.ctx())
	f.check("list", err)
	for _, c := range all {
		if c.ID == id {
			return c, true
		}
	}
	return runtime.Container{}, false
}

// restart goes on with another Backend on the same state.
func (f *fixture) restart() {
	f.Helper()
	f.b = f.h.Restart(f.T)
}

// log reads a container's log as it was written.
func (f *fixture) log(s runtime.ContainerSpec, opts host.LogOptions) (text string, dropped int64) {
	f.Helper()
	h := host.New()
	defer h.Close() //nolint:errcheck // A test's own.
	var out strings.Builder
	for e, err := range h.OpenLog(f.ctx(), launch.ControlDir(s.PodDir, s.Container), opts) {
		f.check("read log", err)
		out.Write(e.Text)
		if !e.Partial && e.Dropped == 0 {
			out.WriteByte('\n')
		}
		dropped += e.Dropped
	}
	return out.String(), dropped
}

// awaitLog follows a log until a line holds text.
func (f *fixture) awaitLog(s runtime.ContainerSpec, text string) {
	f.Helper()
	h := host.New()
	defer h.Close() //nolint:errcheck // A test's own.
	for e, err := range h.OpenLog(f.ctx(), launch.ControlDir(s.PodDir, s.Container), host.LogOptions{Follow: true}) {
		f.check("follow log", err)
		if strings.Contains(string(e.Text), text) {
			return
		}
	}
	f.Fatalf("the log ended without %q", text)
}

// processesWith counts this machine's processes whose command line holds a mark.
func processesWith(mark string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return -1
	}
	n := 0
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(data), mark) {
			n++
		}
	}
	return n
}
