package process

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
)

// TestGroupsSurviveAnotherBackend: a command that reads beside a running daemon
// leaves the parent groups that both use; the daemon's next container must get
// its groups all the same.
func TestGroupsSurviveAnotherBackend(t *testing.T) {
	dir := t.TempDir()
	daemon, err := findGroups(dir)
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("control groups are not allowed here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	reader, err := findGroups(dir)
	if err != nil {
		t.Fatal(err)
	}
	reader.leave()
	folders := daemon.folders("step", true)
	if err := makeGroups(folders, runtime.Resources{CPUMilli: 100}); err != nil {
		t.Fatalf("after another backend left: %v", err)
	}
	for _, folder := range folders {
		if err := os.Remove(folder); err != nil {
			t.Errorf("remove %s: %v", folder, err)
		}
	}
	daemon.leave()
}

func TestContained(t *testing.T) {
	for cgroup, want := range map[string]bool{
		"4:memory:/skiff/0a1b2c3d/c1\n0::/\n":                                    true,
		"0::/user.slice/user-1000.slice/skiff.service/skiff/0a1b2c3d/c1/inner\n": true,
		"0::/skiff/0a1b2c3d\n":                                                   false,
		"0::/skiff/notahash/c1\n":                                                false,
		"0::/system.slice/skiff.service\n":                                       false,
		"0::/user.slice/skiff-daemon/0a1b2c3d/more\n":                            false,
		"": false,
	} {
		if Contained(cgroup) != want {
			t.Errorf("%q: want %v", cgroup, want)
		}
	}
}
