package runtimetest

import (
	"errors"
	"syscall"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
)

func testAdoptRunning(f *fixture) {
	s := f.spec()
	cmd := action("a", "sleep", "600")
	id := f.launch(s, cmd)
	f.restart()
	c, ok := f.find(id)
	if !ok || c.State != runtime.StateRunning || c.StartedAt.IsZero() || c.Labels["skiff.dev/pod"] != s.Labels["skiff.dev/pod"] {
		f.Fatalf("after a restart it is %+v", c)
	}
	again, err := f.b.Create(f.ctx(), s)
	if err != nil || again != id {
		f.Errorf("create after a restart gives %q, %v; want %q", again, err, id)
	}
	f.check("start of a running one", f.b.Start(f.ctx(), id))
	f.check("launch of the same command", f.b.Launch(f.ctx(), id, cmd))
	f.check("stop", f.b.Stop(f.ctx(), id, 0))
	if c := f.end(id); c.Exit == nil || c.Exit.CommandID != "a" || c.Exit.Reason != launch.ReasonStopped {
		f.Errorf("got %+v", c)
	}
}

func testAdoptGated(f *fixture) {
	s := f.spec()
	id := f.start(s)
	f.await(id, runtime.StateWaiting)
	f.restart()
	f.await(id, runtime.StateWaiting)
	f.check("launch", f.b.Launch(f.ctx(), id, action("a", "append", f.out(s)+"/count", "x")))
	if c := f.end(id); c.Exit == nil || c.Exit.ExitCode != 0 {
		f.Errorf("got %+v", c)
	}
	if got := f.result(s, "count"); got != "x\n" {
		f.Errorf("the command wrote %q", got)
	}
}

func testAdoptExited(f *fixture) {
	s := f.spec()
	cmd := action("a", "write", f.out(s)+"/v", "kept")
	cmd.Outputs = []launch.Output{{Name: "v", Path: f.out(s) + "/v"}}
	id := f.launch(s, cmd)
	f.end(id)
	f.restart()
	c := f.end(id)
	if c.State != runtime.StateExited || c.Exit == nil || string(c.Exit.Outputs["v"]) != "kept" {
		f.Errorf("after a restart it is %+v", c)
	}
	if err := f.b.Start(f.ctx(), id); !errors.Is(err, runtime.ErrExited) {
		f.Errorf("start of an exited container: %v", err)
	}
	f.check("launch of the same command", f.b.Launch(f.ctx(), id, cmd))
}

func testAdoptLost(f *fixture) {
	if f.h.SignalLauncher == nil {
		f.Skip("no launcher to kill")
	}
	s := f.spec()
	id := f.launch(s, action("a", "sleep", "600"))
	f.h.SignalLauncher(f.T, id, syscall.SIGKILL)
	f.end(id)
	f.restart()
	if c := f.end(id); c.State != runtime.StateLost {
		f.Errorf("after a restart it is %+v", c)
	}
	if err := f.b.Start(f.ctx(), id); !errors.Is(err, runtime.ErrExited) {
		f.Errorf("start of a lost container: %v", err)
	}
}

func testAdoptCreated(f *fixture) {
	s := f.spec()
	id := f.create(s)
	f.restart()
	again, err := f.b.Create(f.ctx(), s)
	if err != nil || again != id {
		f.Fatalf("create after a restart gives %q, %v; want %q", again, err, id)
	}
	if c, ok := f.find(id); !ok || c.State != runtime.StateCreated {
		f.Errorf("after a restart it is %+v", c)
	}
	f.check("start", f.b.Start(f.ctx(), id))
	f.check("launch", f.b.Launch(f.ctx(), id, action("a", "exit", "0")))
	if c := f.end(id); c.Exit == nil || c.Exit.ExitCode != 0 {
		f.Errorf("got %+v", c)
	}
}
