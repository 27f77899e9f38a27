package process_test

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
	"github.com/skiff-ml/skiff/runtime/process"
)

// wheel writes a package that pip installs without an index.
func wheel(t *testing.T, dir, name, version, source string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%s-py3-none-any.whl", name, version)))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := fmt.Sprintf("%s-%s.dist-info/", name, version)
	for path, text := range map[string]string{
		name + ".py":      source,
		info + "METADATA": fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version),
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":   fmt.Sprintf("%s.py,,\n%sMETADATA,,\n%sWHEEL,,\n%sRECORD,,\n", name, info, info, info),
	} {
		w, err := z.Create(path)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in an image to its end and returns its record and output.
func run(t *testing.T, b *process.Backend, name string, img runtime.Image, argv ...string) (launch.ExitRecord, string) {
	t.Helper()
	return runSpec(t, b, runtime.ContainerSpec{Name: name, Image: img, PodDir: t.TempDir(), Container: "main"}, argv...)
}

func runSpec(t *testing.T, b *process.Backend, spec runtime.ContainerSpec, argv ...string) (launch.ExitRecord, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pod := spec.PodDir
	id, err := b.Create(ctx, spec)
	if err == nil {
		err = b.Start(ctx, id)
	}
	if err == nil {
		err = b.Launch(ctx, id, launch.Command{ID: "a", Argv: argv})
	}
	if err != nil {
		t.Fatal(err)
	}
	h := host.New()
	defer h.Close() //nolint:errcheck // A test's own.
	var out strings.Builder
	for e, err := range h.OpenLog(ctx, launch.ControlDir(pod, "main"), host.LogOptions{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		out.Write(e.Text)
		out.WriteByte('\n')
	}
	// The log has ended, so the record is there.
	r, ok, err := host.ReadExit(launch.ControlDir(pod, "main"))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := b.Stop(ctx, id, 0); err != nil { // its follower has seen the end, too
		t.Error(err)
	}
	if err := b.Remove(ctx, id); err != nil {
		t.Error(err)
	}
	return *r, out.String()
}

func TestPythonEnvironment(t *testing.T) {
	wheels := t.TempDir()
	wheel(t, wheels, "skifftestone", "1.0", "NAME = 'one'\n")
	wheel(t, wheels, "skifftesttwo", "2.0", "NAME = 'two'\n")
	cfg := process.Config{
		StateDir: t.TempDir(), LauncherPath: launcher(t), PipArgs: []string{"--no-index", "--find-links", wheels},
	}
	b := open(t, cfg)
	req := runtime.ImageRequest{
		Ref: "python:3.11-slim",
		Pip: []core.PipCall{{Packages: []string{"skifftestone"}}, {Options: []string{"--no-deps"}, Packages: []string{"skifftesttwo==2.0"}}},
	}
	// Many at once build once.
	var told atomic.Int64
	images := make([]runtime.Image, 4)
	var all sync.WaitGroup
	for i := range images {
		all.Go(func() {
			var err error
			images[i], err = b.PrepareImage(t.Context(), req, func(runtime.ImageProgress) { told.Add(1) })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, img := range images {
		if img.ID != images[0].ID || !img.PipSatisfied {
			t.Errorf("got %+v and %+v", images[0], img)
		}
	}
	if told.Load() < 2 {
		t.Errorf("%d words of progress", told.Load())
	}
	r, out := run(t, b, "both", images[0], "python3", "-c",
		"import skifftestone, skifftesttwo, sys; print(skifftestone.NAME, skifftesttwo.NAME, sys.prefix != sys.base_prefix)")
	if r.ExitCode != 0 || out != "one two True\n" {
		t.Errorf("got %+v, %q", r, out)
	}
	caps, err := b.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.Mounts {
		// A step's own pip works, and touches nobody else's environment.
		r, out = run(t, b, "writes", images[0], "sh", "-c",
			`python -m pip uninstall -q -y skifftestone 2>/dev/null; python3 -c "import skifftestone" 2>&1 | tail -1`)
		if r.ExitCode != 0 || !strings.Contains(out, "No module named") {
			t.Errorf("got %+v, %q", r, out)
		}
		if r, out = run(t, b, "again", images[0], "python3", "-c", "import skifftestone"); r.ExitCode != 0 {
			t.Errorf("a step changed the shared environment: %+v, %q", r, out)
		}
	}

	// The second time costs nothing, in this daemon and in the next.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(wheels); err != nil {
		t.Fatal(err)
	}
	b = open(t, cfg)
	img, err := b.PrepareImage(t.Context(), req, func(runtime.ImageProgress) { t.Error("something was done") })
	if err != nil || img.ID != images[0].ID || img.Digest != images[0].Digest {
		t.Errorf("after a restart got %+v, %v", img, err)
	}
	if r, out := run(t, b, "later", img, "python3", "-c", "import skifftestone"); r.ExitCode != 0 {
		t.Errorf("after a restart: %+v, %q", r, out)
	}

	// Other packages are another environment, and one that cannot be made is
	// an image that cannot be had.
	_, err = b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "python:3.11", Pip: []core.PipCall{{Packages: []string{"skifftestthree"}}}}, nil)
	if !errors.Is(err, runtime.ErrImageUnavailable) || !strings.Contains(err.Error(), "skifftestthree") {
		t.Errorf("a package that is nowhere: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(cfg.StateDir, "envs", "python-*"))
	if err != nil || len(left) != 2 {
		t.Errorf("the folder holds %v", left)
	}
}

func TestPrepareIsGivenUp(t *testing.T) {
	b := open(t, process.Config{StateDir: t.TempDir(), LauncherPath: launcher(t)})
	cause := errors.New("nobody waits")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := b.PrepareImage(ctx, runtime.ImageRequest{Ref: "python:3.11"}, func(runtime.ImageProgress) { cancel(cause) })
	if !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestRules(t *testing.T) {
	b := open(t, process.Config{
		StateDir: t.TempDir(), LauncherPath: launcher(t),
		Rules: []process.Rule{
			{Match: "corp.example/tools/*", Kind: process.KindShell, Env: []string{"TOOL=1"}},
			{Match: "needs", Kind: process.KindShell, Programs: []string{"no-such-program-here"}},
		},
	})
	for _, ref := range []string{
		"alpine", "alpine:3.20", "docker.io/library/busybox:latest", "gcr.io/containerd/busybox", "bash", "debian:12-slim",
		"ubuntu@sha256:0123", "localhost:5000/team/alpine", "corp.example/tools/sed:1",
	} {
		img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: ref}, nil)
		if err != nil || img.ID == "" {
			t.Errorf("%s: %+v, %v", ref, img, err)
		}
	}
	for ref, hint := range map[string]string{
		"tensorflow/tensorflow:2": "--runtime docker", "gcr.io/team/trainer": "rule", "needs:1": "no-such-program-here",
	} {
		_, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: ref}, nil)
		if !errors.Is(err, runtime.ErrImageUnavailable) || !strings.Contains(err.Error(), ref) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, bad := range []process.Rule{{Match: "[", Kind: process.KindShell}, {Kind: process.KindShell}, {Match: "x", Kind: "vm"}} {
		if _, err := process.New(process.Config{StateDir: t.TempDir(), LauncherPath: launcher(t), Rules: []process.Rule{bad}}); err == nil {
			t.Errorf("rule %+v was taken", bad)
		}
	}
}
