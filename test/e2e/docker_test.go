//go:build docker

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/test/corpus"
)

func TestCorpusDocker(t *testing.T) { runCorpus(t, corpus.Docker, ownCorpus(t)) }

func TestPublicCorpusDocker(t *testing.T) { runCorpus(t, corpus.Docker, publicCorpus(t)) }

// TestDaemonKilledAtRandomDocker is TestDaemonKilledAtRandom over containers.
func TestDaemonKilledAtRandomDocker(t *testing.T) {
	d := killAtRandom(t, 20, "--runtime", "docker")
	d.noContainers(t.Context())
}

// noContainers waits until the engine has no container of the daemon's store:
// finished ones are removed behind the steps' backs.
func (d *daemon) noContainers(ctx context.Context) {
	d.t.Helper()
	eventually(d.t, cleanUp, "no container is left", func() error {
		// Every container has its pod's folder mounted, so the state folder tells
		// this daemon's containers from all others.
		ids, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet", "--filter", "label=skiff.dev/store").Output()
		if err != nil {
			return err
		}
		for id := range strings.FieldsSeq(string(ids)) {
			mounts, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", id).Output()
			if err == nil && strings.Contains(string(mounts), d.state+string(filepath.Separator)) {
				return &os.PathError{Op: "container", Path: id, Err: os.ErrExist}
			}
		}
		return nil
	})
}
