package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// sdk is the Python with the kfp SDK, made once in the cache.
var sdk = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../venv.sh").Output()
	return strings.TrimSpace(string(out)), err
})

// TestKFPClients runs the clients that people have, unmodified, against a
// daemon: each script tries every method or command that its client has, and
// fails where one was added that it does not try.
func TestKFPClients(t *testing.T) {
	if testing.Short() {
		t.Skip("runs some ten pipelines")
	}
	python, err := sdk()
	if err != nil {
		t.Fatalf("the kfp SDK is not at hand: %v", err)
	}
	for _, script := range []string{"client.py", "generated.py", "cli.py"} {
		t.Run(script, func(t *testing.T) {
			// Each has a daemon of its own, since they count what is there.
			d := newDaemon(t, "--runtime", "process")
			runScript(t, d, python, filepath.Join("testdata", "kfp", script))
		})
	}
}

// TestKFPExample runs the example as its reader would: without a token, as the
// user who runs the daemon.
func TestKFPExample(t *testing.T) {
	python, err := sdk()
	if err != nil {
		t.Fatalf("the kfp SDK is not at hand: %v", err)
	}
	d := newDaemon(t, "--runtime", "process")
	cmd := exec.CommandContext(t.Context(), python, "-W", "ignore", "../../examples/kfp-client/client.py", "http://"+d.addr)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "PYTHONDONTWRITEBYTECODE=1", "NO_PROXY=127.0.0.1,localhost")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the example: %v\n%s", err, out)
	}
	for _, want := range []string{"SUCCEEDED", "runs in the experiment: 1"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the example does not print %q:\n%s", want, out)
		}
	}
}

// runScript runs a Python script with the daemon's address and token.
func runScript(t *testing.T, d *daemon, python, script string, args ...string) string {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(d.state, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, append([]string{"-W", "ignore", script}, args...)...)
	folder := t.TempDir()
	cmd.Env = append(os.Environ(), "KFP_HOST=http://"+d.addr, "KFP_TOKEN="+strings.TrimSpace(string(token)), "KFP_FOLDER="+folder,
		"HOME="+folder, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "NO_PROXY=127.0.0.1,localhost")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
