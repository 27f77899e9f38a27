//go:build docker

package docker_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/runtime/runtimetest"
)

const (
	// shell has the folders of a whole system, busybox nothing but itself.
	shell   = "skiffdev/shell:1"
	busybox = "skiffdev/busybox:1"
	python  = "skiffdev/python:3.11"
	// labelTest marks all that a test makes; only what carries it is removed.
	labelTest = "skiff.test"
)

// rig is one engine with a store of its own.
type rig struct {
	*testing.T
	cfg docker.Config
	api dockerapi.API
	b   *docker.Backend
	// made are all backends, closed at the end.
	made []*docker.Backend
}

// newRig makes a backend over the engine at host; empty means the machine's.
func newRig(t *testing.T, host string, change func(*docker.Config)) *rig {
	t.Helper()
	id := uuid.NewString()[:13]
	state := t.TempDir()
	if host == "" {
		host = docker.DefaultHost
	}
	api, err := dockerapi.New(host)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, api: api, cfg: docker.Config{
		Host: host, StateDir: state, StoreID: "test-" + id, LauncherPath: launchtest.Build(t),
		Logger: slog.New(slog.NewTextHandler(logWriter{t}, nil)), Labels: map[string]string{labelTest: id},
		AllowedHostPaths: []docker.HostPath{{Path: os.TempDir()}},
	}}
	if change != nil {
		change(&r.cfg)
	}
	// First in, last out: whoever cleans up before it still has its backends.
	t.Cleanup(r.cleanUp)
	r.restart()
	return r
}

// logWriter gives the backend's log to the test.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// restart makes another backend on the same state, as a new daemon would.
func (r *rig) restart() *docker.Backend {
	r.Helper()
	b, err := docker.New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.b = b
	r.made = append(r.made, b)
	return b
}

// cleanUp removes what carries the test's label.
func (r *rig) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, b := range r.made {
		if err := b.Close(); err != nil {
			r.Errorf("close: %v", err)
		}
	}
	defer func() { _ = r.api.Close() }() // Nothing is under way any more.
	list, err := r.api.ContainerList(ctx, labelTest+"="+r.cfg.Labels[labelTest])
	if err != nil {
		r.Logf("cannot list what the test left: %v", err)
		return
	}
	for _, c := range list {
		if err := r.api.ContainerRemove(ctx, c.ID, true); err != nil && !dockerapi.IsNotFound(err) {
			r.Errorf("remove %s: %v", c.ID, err)
		}
	}
	r.removeNetworks(ctx)
}

func (r *rig) podDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(r.cfg.StateDir, "pods", uuid.NewString())
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *rig) signal(t *testing.T, id string, sig syscall.Signal) {
	t.Helper()
	if err := r.api.ContainerKill(t.Context(), id, fmt.Sprint(int(sig))); err != nil {
		t.Fatalf("signal: %v", err)
	}
}

func TestConformance(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) *runtimetest.Harness {
		r := newRig(t, "", nil)
		return &runtimetest.Harness{
			Backend: r.b, NewPodDir: r.podDir,
			Restart: func(*testing.T) runtime.Backend { return r.restart() },
			Image:   shell, Python: python, UnknownImage: "skiffdev/there-is-no-such-image:0",
			Processes: true, SignalLauncher: r.signal, Users: true, Timeout: time.Minute,
		}
	})
}

// removeNetworks removes those of the test's own namespaces.
func (r *rig) removeNetworks(ctx context.Context) {
	r.Helper()
	filter := "label=" + labelTest + "=" + r.cfg.Labels[labelTest]
	out, err := r.docker(ctx, "network", "ls", "-q", "--filter", filter)
	if err != nil {
		r.Logf("list networks: %v", err)
		return
	}
	for id := range strings.FieldsSeq(out) {
		// The namespace "default" is everybody's: it may be in use, and stays.
		if _, err := r.docker(ctx, "network", "rm", id); err != nil {
			r.Logf("remove network: %v", err)
		}
	}
}

// docker runs the docker command against the rig's engine.
func (r *rig) docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", r.cfg.Host}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
