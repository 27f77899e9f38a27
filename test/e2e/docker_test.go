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

// TestContainersNeedAToken: a container on the machine's own network has root's
// uid and the loopback, and is nobody all the same, even among the machine's
// processes.
func TestContainersNeedAToken(t *testing.T) {
	requiresLookups(t)
	d := newDaemon(t, "--runtime", "docker")
	for _, flags := range [][]string{{"--network=host"}, {"--network=host", "--pid=host"}} {
		args := append(append([]string{"run", "--rm", "--label", "skiff.test=loopback"}, flags...),
			"skiffdev/python:3.11", "python3", "-c", askPython, "http://"+d.addr+runsPath)
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "code 401") {
			t.Errorf("%v: %v: %s", flags, err, out)
		}
	}
}

// TestPauseAndResumeDocker is TestPauseAndResume over containers.
func TestPauseAndResumeDocker(t *testing.T) {
	d := newDaemon(t, "--runtime", "docker")
	pauseAndResume(t, d, "testdata/moody.yaml")
	d.noContainers(t.Context())
}

// TestDebugDocker: a step's container again, whose outputs spoil no result.
func TestDebugDocker(t *testing.T) {
	d := newDaemon(t, "--runtime", "docker")
	doc := document(t, d.skiff(t.Context(), "run", "../../cmd/skiff/testdata/pipelines/greet.yaml", "-p", "name=it's $HOME", "-o", "json"))
	if doc.State != "SUCCEEDED" {
		t.Fatalf("state %s: %s", doc.State, doc.Message)
	}
	model := "/minio/mlpipeline/v2/artifacts/greet/" + doc.RunID + "/greet/1/model"
	got := d.skiff(t.Context(), "debug", doc.RunID+"/greet", "--", "sh", "-c",
		"/tmp/skiff/command.sh && cat /tmp/kfp/outputs/text && echo spoilt > "+model+" && echo index $KFP_RETRY_INDEX && exit 7")
	if got.code != 7 || !strings.Contains(got.stdout, "hello it's $HOME") || !strings.Contains(got.stdout, "index 0") {
		t.Errorf("%+v", got)
	}
	content, err := os.ReadFile(filepath.Join(d.state, "artifacts", "default", model))
	if err != nil || string(content) != "weights" {
		t.Errorf("%q %v", content, err)
	}
	d.noContainers(t.Context())
}

func TestArtifactsInABucketDocker(t *testing.T) { artifactsInABucket(t, "--runtime", "docker") }
