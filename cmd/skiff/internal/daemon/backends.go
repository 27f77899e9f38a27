package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/launch/embedded"
	"github.com/skiff-ml/skiff/runtime/process"
)

// dockerPatience is how long auto waits for Docker's answer: a running engine
// takes milliseconds, and nobody should wait for one that hangs.
const dockerPatience = 2 * time.Second

// chooseBackend takes the runtime that was asked for; auto takes Docker where it
// answers.
func (d *daemon) chooseBackend(ctx context.Context) (runtime.Backend, error) {
	switch d.cfg.Runtime {
	case RuntimeDocker, RuntimeProcess:
		return newBackend(d.cfg, d.cfg.Runtime, d.store.ID())
	}
	engine, err := newBackend(d.cfg, RuntimeDocker, d.store.ID())
	if err == nil {
		probe, cancel := context.WithTimeout(ctx, dockerPatience)
		_, err = engine.Capabilities(probe)
		cancel()
		if err == nil {
			return engine, nil
		}
		closeBackend(engine)
	}
	d.log.Info("no Docker engine answers; steps run as processes of this machine", "reason", err)
	return newBackend(d.cfg, RuntimeProcess, d.store.ID())
}

// newBackend makes a backend; nothing is touched but the launcher's folder.
func newBackend(cfg Config, name, storeID string) (runtime.Backend, error) {
	// Whoever comes first makes the state folder, and it is nobody else's.
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	launcher, err := embedded.Unpack(embedded.Config{Dir: filepath.Join(cfg.StateDir, launcherDir)})
	if err != nil {
		return nil, err
	}
	env, err := cfg.containerEnv()
	if err != nil {
		return nil, err
	}
	switch name {
	case RuntimeDocker:
		return docker.New(docker.Config{
			StateDir: cfg.StateDir, StoreID: storeID, LauncherPath: launcher, Logger: cfg.Logger,
			ContainerEnv: env, ContainerCA: cfg.ContainerCA,
		})
	case RuntimeProcess:
		trust, visible, err := cfg.processTrust()
		if err != nil {
			return nil, err
		}
		return process.New(process.Config{
			StateDir: cfg.StateDir, LauncherPath: launcher, Logger: cfg.Logger,
			Env: append(trust, env...), Visible: visible,
		})
	}
	return nil, fmt.Errorf("there is no runtime %q", name)
}

// closeBackend lets go of what a backend holds; what it runs goes on.
func closeBackend(b runtime.Backend) {
	if closer, ok := b.(io.Closer); ok {
		_ = closer.Close()
	}
}
