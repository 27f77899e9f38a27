package host_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what should happen at once.
const deadline = 20 * time.Second

// box is one launcher under test.
type box struct {
	t   *testing.T
	h   *host.Host
	dir string
	cmd *exec.Cmd
}

// newBox prepares a control folder and a Host.
func newBox(t *testing.T, cfg launch.Config) *box {
	t.Helper()
	pod := t.TempDir()
	if err := host.Prepare(pod, "main", cfg); err != nil {
		t.Fatal(err)
	}
	h := host.New()
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return &box{t: t, h: h, dir: launch.ControlDir(pod, "main")}
}

// start starts a launcher; it is killed and reaped at the test's end.
func (b *box) start() *box {
	b.t.Helper()
	b.cmd = exec.Command(launchtest.Build(b.t), b.dir)
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = b.cmd.Wait(); close(done) }()
	b.t.Cleanup(func() { _ = b.cmd.Process.Kill(); <-done })
	return b
}

func (b *box) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), deadline)
	b.t.Cleanup(cancel)
	return ctx
}

// launch hands over a shell script.
func (b *box) launch(id, script string) {
	b.t.Helper()
	if err := b.h.Launch(b.ctx(), b.dir, shell(id, script)); err != nil {
		b.t.Fatal(err)
	}
}

func shell(id, script string) launch.Command {
	return launch.Command{ID: id, Argv: []string{"/bin/sh", "-c", script}}
}

// end follows the launcher to its end.
func (b *box) end() (phases []launch.Phase, last host.Status) {
	b.t.Helper()
	err := b.h.Follow(b.ctx(), b.dir, func(s host.Status) { phases, last = append(phases, s.Phase), s })
	if err != nil {
		b.t.Fatal(err)
	}
	return phases, last
}

// log reads the whole log as the command wrote it.
func (b *box) log(opts host.LogOptions) string {
	b.t.Helper()
	var out strings.Builder
	for e, err := range b.h.OpenLog(b.ctx(), b.dir, opts) {
		if err != nil {
			b.t.Fatal(err)
		}
		out.Write(e.Text)
		if !e.Partial && e.Dropped == 0 {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func TestRunToTheEnd(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "echo one; printf two >&2; exit 7")
	_, last := b.end()
	if last.Lost || last.Exit == nil || last.Exit.ExitCode != 7 || last.Exit.Reason != launch.ReasonError {
		t.Fatalf("got %+v %+v", last, last.Exit)
	}
	if last.Exit.CommandID != "a" || last.Exit.LogBytes != 7 || last.Exit.MaxRSS == 0 {
		t.Errorf("got %+v", last.Exit)
	}
	if got := b.log(host.LogOptions{Streams: []string{"stdout"}}); got != "one\n" {
		t.Errorf("stdout is %q", got)
	}
	if got := b.log(host.LogOptions{Streams: []string{"stderr"}}); got != "two" {
		t.Errorf("stderr is %q", got)
	}
}

func TestLaunchOnce(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	out := t.TempDir() + "/count"
	b.launch("a", "echo x >> "+out+"; exec sleep 0.2")
	b.launch("a", "echo x >> "+out) // running: nothing more
	err := b.h.Launch(b.ctx(), b.dir, shell("b", "true"))
	if !errors.Is(err, host.ErrOtherCommand) {
		t.Errorf("another command: %v", err)
	}
	b.end()
	b.launch("a", "echo x >> "+out) // ended: nothing more
	if err := b.h.Launch(b.ctx(), b.dir, shell("b", "true")); !errors.Is(err, host.ErrOtherCommand) {
		t.Errorf("another command after the end: %v", err)
	}
	// A container that is started again does not run again.
	again := exec.Command(launchtest.Build(t), b.dir)
	if err := again.Run(); err == nil || again.ProcessState.ExitCode() != 125 {
		t.Errorf("second start: %v", err)
	}
	if data, _ := os.ReadFile(out); string(data) != "x\n" {
		t.Errorf("the command ran %d times", len(data)/2)
	}
}

func TestFollowSeesEachPhase(t *testing.T) {
	b := newBox(t, launch.Config{})
	var phases []launch.Phase
	seen := make(chan host.Status, 10)
	done := make(chan error, 1)
	go func() { done <- b.h.Follow(b.ctx(), b.dir, func(s host.Status) { seen <- s }) }()
	b.start()
	s := <-seen
	phases = append(phases, s.Phase)
	if s.PID != b.cmd.Process.Pid {
		t.Errorf("pid is %d, want %d", s.PID, b.cmd.Process.Pid)
	}
	b.launch("a", "true")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	close(seen)
	for s := range seen {
		phases = append(phases, s.Phase)
	}
	want := []launch.Phase{launch.PhaseWaiting, launch.PhaseRunning, launch.PhaseExited}
	if len(phases) != 3 || phases[0] != want[0] || phases[1] != want[1] || phases[2] != want[2] {
		t.Errorf("got %v, want %v", phases, want)
	}
}

func TestKilledLauncherIsLost(t *testing.T) {
	for _, gated := range []bool{true, false} {
		b := newBox(t, launch.Config{}).start()
		done := make(chan host.Status, 1)
		up := make(chan struct{}, 3)
		go func() {
			var last host.Status
			_ = b.h.Follow(b.ctx(), b.dir, func(s host.Status) { last = s; up <- struct{}{} })
			done <- last
		}()
		<-up
		if !gated {
			b.launch("a", "sleep 600")
		}
		_ = b.cmd.Process.Kill()
		if s := <-done; !s.Lost {
			t.Errorf("gated %v: got %+v", gated, s)
		}
		if err := b.h.Launch(b.ctx(), b.dir, shell("a", "true")); !errors.Is(err, host.ErrNoLauncher) && !errors.Is(err, host.ErrLost) {
			t.Errorf("launch in a dead one: %v", err)
		}
		if err := b.h.Stop(b.ctx(), b.dir, 0); err != nil {
			t.Errorf("stop of a dead one: %v", err)
		}
	}
}

func TestStop(t *testing.T) {
	tests := []struct {
		name, script string
		grace        time.Duration
		code, signal int
	}{
		{"obeys", "exec sleep 600", time.Minute, 143, 15},
		{"ends with 0", "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done", time.Minute, 143, 0},
		{"ends with its own code", "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done", time.Minute, 4, 0},
		{"ignores it", "trap '' TERM; echo up; while :; do sleep 0.1; done", 50 * time.Millisecond, 137, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, launch.Config{}).start()
			b.launch("a", tt.script)
			if strings.Contains(tt.script, "echo up") {
				b.awaitLog("up")
			}
			if err := b.h.Stop(b.ctx(), b.dir, tt.grace); err != nil {
				t.Fatal(err)
			}
			r, ok, err := host.ReadExit(b.dir)
			if err != nil || !ok {
				t.Fatalf("no record after stop: %v", err)
			}
			if r.ExitCode != tt.code || r.Signal != tt.signal || r.Reason != launch.ReasonStopped {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// awaitLog waits for a line of output.
func (b *box) awaitLog(text string) {
	b.t.Helper()
	for e, err := range b.h.OpenLog(b.ctx(), b.dir, host.LogOptions{Follow: true}) {
		if err != nil {
			b.t.Fatal(err)
		}
		if strings.Contains(string(e.Text), text) {
			return
		}
	}
	b.t.Fatalf("the log ended without %q", text)
}

func TestGatedStopIsNeverSuccess(t *testing.T) {
	for _, how := range []string{"stop", "signal"} {
		b := newBox(t, launch.Config{}).start()
		want := launch.ReasonStopped
		if how == "stop" {
			if err := b.h.Stop(b.ctx(), b.dir, 0); err != nil {
				t.Fatal(err)
			}
		} else {
			want = launch.ReasonShutdown
			c, err := b.h.Connect(b.ctx(), b.dir)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			_ = b.cmd.Process.Signal(sigterm)
		}
		_, last := b.end()
		if last.Exit == nil || last.Exit.ExitCode != 143 || last.Exit.Reason != want {
			t.Errorf("%s: got %+v", how, last.Exit)
		}
	}
}

func TestSignalFromOutsideIsAShutdown(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done")
	b.awaitLog("up")
	_ = b.cmd.Process.Signal(os.Signal(sigterm))
	_, last := b.end()
	if r := last.Exit; r == nil || r.Reason != launch.ReasonShutdown || r.ExitCode != 143 {
		t.Errorf("got %+v", r)
	}
}

func TestSignalIsPassedOn(t *testing.T) {
	b := newBox(t, launch.Config{}).start()
	b.launch("a", "trap 'echo got; exit 9' USR1; echo up; while :; do sleep 0.02; done")
	b.awaitLog("up")
	if err := host.Signal(b.ctx(), b.dir, int(sigusr1)); err != nil {
		t.Fatal(err)
	}
	_, last := b.end()
	if r := last.Exit; r == nil || r.ExitCode != 9 || r.Reason != launch.ReasonError {
		t.Errorf("got %+v", r)
	}
}

func TestCommandOnDiskNeedsNoDaemon(t *testing.T) {
	b := newBox(t, launch.Config{})
	if err := host.PlaceCommand(b.dir, shell("d", "exit 5")); err != nil {
		t.Fatal(err)
	}
	b.start()
	_, last := b.end()
	if r := last.Exit; r == nil || r.ExitCode != 5 || r.CommandID != "d" {
		t.Errorf("got %+v", r)
	}
}
