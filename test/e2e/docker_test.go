//go:build docker

package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDaemonKilledAtRandomDocker is TestDaemonKilledAtRandom over containers.
func TestDaemonKilledAtRandomDocker(t *testing.T) {
	killAtRandom(t, 20, "--runtime", "docker")
	out, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "label=skiff.dev/run").Output()
	if err != nil {
		t.Fatal(err)
	}
	if left := strings.Fields(string(out)); len(left) > 0 {
		t.Logf("%d containers of other stores are there; those of this test are counted by skiff ps", len(left))
	}
}
