package docker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// newTestBackend is a backend without an engine.
func newTestBackend(t *testing.T) *Backend {
	t.Helper()
	state := t.TempDir()
	launcher := filepath.Join(state, "launcher")
	if err := os.WriteFile(launcher, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg, err := Config{StateDir: state, StoreID: "store", LauncherPath: launcher, DockerConfig: filepath.Join(state, "none.json")}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBackend(cfg, &fakeEngine{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// testSpec is a container whose folders exist.
func testSpec(t *testing.T) runtime.ContainerSpec {
	t.Helper()
	pod := t.TempDir()
	if err := os.MkdirAll(launch.ControlDir(pod, "main"), 0o700); err != nil {
		t.Fatal(err)
	}
	return runtime.ContainerSpec{
		Name: "c", PodDir: pod, Container: "main", Image: runtime.Image{ID: "sha256:0"},
		Labels: map[string]string{"skiff.dev/pod": "p"},
	}
}

// notFound is the engine's error of that class.
type notFound struct{ error }

func (notFound) NotFound() {}

// fakeEngine answers the calls about images; other calls end the test.
type fakeEngine struct {
	dockerapi.API

	mu     sync.Mutex
	have   map[string]dockerapi.Image
	pulls  []string // refs
	auths  []string
	stream func(ctx context.Context, ref string) (string, error)
	arrive map[string]dockerapi.Image // what a pull brings
	gate   chan struct{}              // a pull waits for it, where it is not nil
}

func (e *fakeEngine) Close() error { return nil }

func (e *fakeEngine) ImageInspect(_ context.Context, ref string) (dockerapi.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if img, ok := e.have[ref]; ok {
		return img, nil
	}
	return dockerapi.Image{}, notFound{errors.New("No such image: " + ref)}
}

func (e *fakeEngine) ImagePull(ctx context.Context, ref, auth string) (io.ReadCloser, error) {
	e.mu.Lock()
	e.pulls, e.auths = append(e.pulls, ref), append(e.auths, auth)
	gate := e.gate
	e.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	text, err := e.stream(ctx, ref)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if img, ok := e.arrive[ref]; ok {
		e.have[ref] = img
	}
	return io.NopCloser(strings.NewReader(text)), nil
}
