package process_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/runtime/process"
	"github.com/skiff-ml/skiff/runtime/runtimetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, cfg process.Config) *process.Backend {
	t.Helper()
	b, err := process.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// launcherFlag is for the run of this binary as another user, who has no Go.
var launcherFlag = flag.String("launcher", "", "a launcher to use instead of building one")

func launcher(t testing.TB) string {
	t.Helper()
	if *launcherFlag != "" {
		return *launcherFlag
	}
	return launchtest.Build(t)
}

// TestUnprivileged runs the suite as a user who may do nothing: namespaces are
// then a matter of the kernel's settings, and both ways must hold.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: TestConformance is the same already")
	}
	const nobody = 65534
	path := launcher(t)
	home, err := os.MkdirTemp("", "nobody-") // t.TempDir is closed to other users.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	binary := filepath.Join(home, "process.test")
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(binary, data, 0o755)
	}
	if err == nil {
		err = errors.Join(os.Chmod(home, 0o755), os.Chown(home, nobody, nobody))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run", "^TestConformance$", "-launcher", path)
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + home, "HOME=" + home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  process.Config
	}{
		{"Strongest", process.Config{}},
		{"ProcessOnly", process.Config{Level: process.LevelProcess, NoCgroups: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runtimetest.Run(t, func(t *testing.T) *runtimetest.Harness { return harness(t, tt.cfg) })
		})
	}
}

func harness(t *testing.T, cfg process.Config) *runtimetest.Harness {
	cfg.StateDir = t.TempDir()
	cfg.LauncherPath = launcher(t)
	b := open(t, cfg)
	return &runtimetest.Harness{
		Backend: b,
		NewPodDir: func(t *testing.T) string {
			dir, err := os.MkdirTemp(cfg.StateDir, "pod-") // Pods lie in the state folder.
			if err != nil {
				t.Fatal(err)
			}
			return dir
		},
		Restart: func(t *testing.T) runtime.Backend {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = open(t, cfg)
			return b
		},
		Image: "alpine:3.20", UnknownImage: "example.com/team/trainer:7", Processes: true,
		Users:          os.Geteuid() == 0 && cfg.Level != process.LevelProcess,
		SignalLauncher: func(t *testing.T, id string, sig syscall.Signal) { signalLauncher(t, cfg.StateDir, id, sig) },
	}
}

// signalLauncher finds a launcher by its socket, as an administrator would.
func signalLauncher(t *testing.T, stateDir, id string, sig syscall.Signal) {
	t.Helper()
	pid, err := process.LauncherPID(t.Context(), filepath.Join(stateDir, "process", id))
	if err == nil {
		err = syscall.Kill(pid, sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}
