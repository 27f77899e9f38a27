package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// binary is the skiff under test: the one that SKIFF_TEST_BINARY names, or this
// tree's, built once for the package.
var binary = sync.OnceValues(func() (string, error) {
	if named := os.Getenv("SKIFF_TEST_BINARY"); named != "" {
		return filepath.Abs(named)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	build := exec.Command("make", "--no-print-directory", "build")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin", "skiff"), nil
})

// daemon is a running `skiff up` on a state folder of its own.
type daemon struct {
	t     *testing.T
	bin   string
	state string
	flags []string
	addr  string
	log   string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// newDaemon prepares a daemon and starts it. It is stopped with the test.
func newDaemon(t *testing.T, flags ...string) *daemon {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: containers may leave files that take root to remove, and
	// a failed test's state is worth a look.
	state, err := os.MkdirTemp("", "skiff-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(flags, "process") {
		flags = append(flags, wheelhouse()...)
	}
	d := &daemon{t: t, bin: bin, state: state, flags: flags, addr: freeAddress(t), log: filepath.Join(state, "..", filepath.Base(state)+".log")}
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("the daemon's state is in %s, its log in %s", d.state, d.log)
			return
		}
		if err := os.RemoveAll(d.state); err != nil {
			t.Errorf("remove the state folder: %v", err)
		}
		if err := os.Remove(d.log); err != nil {
			t.Errorf("remove the daemon's log: %v", err)
		}
	})
	d.start()
	return d
}

// wheelhouse makes the process runtime install from the images' wheels, where
// `make images` has made them, so that both runtimes have the same packages and
// neither needs a network. The images have the same settings of their own.
func wheelhouse() []string {
	wheels := os.Getenv("SKIFF_TEST_WHEELS")
	if wheels == "" {
		return nil
	}
	return []string{"--container-env", "PIP_NO_INDEX=1", "--container-env", "PIP_FIND_LINKS=" + wheels}
}

// start runs the daemon and returns when it is ready.
func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(d.bin, append([]string{"up", "--state-dir", d.state, "--listen", d.addr}, d.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.cmd = cmd
	d.mu.Unlock()
	eventually(d.t, 30*time.Second, "the daemon is ready", func() error {
		resp, err := http.Get("http://" + d.addr + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz answers %s", resp.Status)
		}
		return nil
	})
}

// kill ends the daemon the hard way.
func (d *daemon) kill() {
	d.mu.Lock()
	cmd := d.cmd
	d.cmd = nil
	d.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill() // it may have ended by itself: Wait tells
		_ = cmd.Wait()
	}
}

// stop ends the daemon the polite way.
func (d *daemon) stop() {
	d.mu.Lock()
	cmd := d.cmd
	d.cmd = nil
	d.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(os.Interrupt)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		<-done
		d.t.Error("the daemon did not end within 20 s of SIGINT")
	}
}

// result is what a skiff command did.
type result struct {
	stdout, stderr string
	code           int
}

// skiff runs a command against the daemon.
func (d *daemon) skiff(ctx context.Context, args ...string) result {
	d.t.Helper()
	cmd := exec.CommandContext(ctx, d.bin, args...)
	cmd.Env = append(os.Environ(), "SKIFF_STATE_DIR="+d.state, "SKIFF_HOST=http://"+d.addr)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("skiff %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// runDocument is the part of `-o json` that the tests read.
type runDocument struct {
	State           string              `json:"state"`
	RunID           string              `json:"run_id"`
	Message         string              `json:"message"`
	Outputs         map[string]any      `json:"outputs"`
	Tasks           []taskDocument      `json:"tasks"`
	Artifacts       []artifactDocument  `json:"artifacts"`
	OutputArtifacts map[string][]string `json:"output_artifacts"`
}

type artifactDocument struct {
	Name     string         `json:"name"`
	ID       string         `json:"id"`
	Type     string         `json:"type"`
	URI      string         `json:"uri"`
	Metadata map[string]any `json:"metadata"`
}

// output is a root output artifact by its name, nil where there is none.
func (d *runDocument) output(name string) *artifactDocument {
	for _, id := range d.OutputArtifacts[name] {
		for i := range d.Artifacts {
			if d.Artifacts[i].ID == id {
				return &d.Artifacts[i]
			}
		}
	}
	return nil
}

type taskDocument struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Attempts int    `json:"attempts"`
	Cached   bool   `json:"cached"`
	ExitCode *int   `json:"exit_code"`
	Message  string `json:"message"`
	// ReusedFrom is the id of the task whose result was taken over.
	ReusedFrom string `json:"reused_from"`
}

// document reads a run document from a command's standard output.
func document(t *testing.T, r result) runDocument {
	t.Helper()
	var doc runDocument
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatalf("standard output is not a run document: %v\nstdout: %.2000s\nstderr: %.2000s", err, r.stdout, r.stderr)
	}
	return doc
}

// eventually waits for a condition of another process, which offers no event
// to wait for.
func eventually(t *testing.T, within time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
