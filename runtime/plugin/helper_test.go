package plugin

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime/device"
)

const module = "github.com/skiff-ml/skiff"

// realHelper builds the helper as it is shipped.
func realHelper(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed, and the helper needs cgo: install gcc")
	}
	helper := filepath.Join(t.TempDir(), HelperName)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", helper, module+"/plugins/nvml")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-Wno-deprecated-declarations")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the helper: %v\n%s", err, out)
	}
	return helper
}

// hasDriver says whether this machine has NVIDIA's driver, by what the kernel says.
func hasDriver() bool {
	_, err := os.Stat("/proc/driver/nvidia/version")
	return err == nil
}

// The real helper on the real machine: on one without a driver, no devices and a
// reason; on one with a driver, what the kernel itself lists.
func TestTheRealHelper(t *testing.T) {
	cfg := Config{Path: realHelper(t), SMI: "none"}
	s := run(t, cfg)
	v := await(t, s, "a first look", func(v device.Inventory) bool { return v.Source != "" })
	if err := v.Check(); err != nil {
		t.Error(err)
	}
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperRunning && strings.HasPrefix(st.Helper, "skiff-nvml") })
	if !hasDriver() {
		if len(v.Devices) != 0 || !noted("No GPUs: libnvidia-ml.so.1 is not installed")(v) {
			t.Errorf("without a driver: %+v", v)
		}
	} else {
		for _, d := range device.ReadProc(os.DirFS("/")).Devices {
			if _, found := v.Find(d.UUID); !found {
				t.Errorf("the kernel lists %s, the helper does not: %+v", d.UUID, v)
			}
		}
	}
	if _, _, err := s.Usage(t.Context()); err != nil {
		t.Errorf("usage: %v", err)
	}
	if st := s.Status(); st.Starts != 1 || st.Err != "" {
		t.Errorf("status %+v", st)
	}
}

// A hang of the real helper, at a moment of its own choosing, is ended too.
func TestTheRealHelperStopped(t *testing.T) {
	cfg := Config{Path: realHelper(t), SMI: "none", BeatTimeout: 3 * time.Second, Quick: []time.Duration{10 * time.Millisecond}}
	s := run(t, cfg)
	// Until its first look the helper may be silent for much longer.
	await(t, s, "a first look", func(v device.Inventory) bool { return v.Source != "" })
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperRunning })
	pid := s.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperRunning && st.PID != pid && st.PID != 0 })
}

func TestTheRealHelperByHand(t *testing.T) {
	helper := realHelper(t)
	out, err := exec.CommandContext(t.Context(), helper).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "--probe") {
		t.Errorf("run by hand: %v, %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), helper, "--probe").Output()
	if err != nil || !strings.Contains(string(out), `"devices"`) {
		t.Errorf("--probe: %v, %s", err, out)
	}
	if !hasDriver() && !strings.Contains(string(out), "libnvidia-ml.so.1 is not installed") {
		t.Errorf("--probe gives no reason: %s", out)
	}
}

// A build without cgo is a program that says so, not one that finds no devices.
func TestAHelperWithoutCgo(t *testing.T) {
	helper := filepath.Join(t.TempDir(), HelperName)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", helper, module+"/plugins/nvml")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build without cgo: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), helper).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "built without cgo") {
		t.Errorf("got %v, %s", err, out)
	}
	cfg := quick(helper)
	s := run(t, cfg)
	await(t, s, "a failure with a reason", noted("The inventory helper failed"))
}

// The daemon must not link NVIDIA's library, nor anything of cgo's: not through
// this package, and not through any other.
func TestTheDaemonLinksNoNVML(t *testing.T) {
	packages := []string{module + "/runtime/plugin"}
	if err := exec.CommandContext(t.Context(), "go", "list", module+"/cmd/skiff").Run(); err == nil {
		packages = append(packages, module+"/cmd/skiff")
	}
	for _, p := range packages {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", p)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("list what %s links: %v", p, err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, p) {
			t.Fatalf("go list of %s does not name it: %s", p, out)
		}
		for _, dep := range deps {
			if strings.HasPrefix(dep, "github.com/NVIDIA/") || dep == module+"/plugins/nvml" {
				t.Errorf("%s links %s", p, dep)
			}
		}
	}
}

// hostEnv makes the test binary a daemon over the helper that it names.
const hostEnv = "SKIFF_TEST_HELPER"

// actHost runs a supervisor, tells the helper's process and waits to be killed.
func actHost(helper string) {
	s, err := NewInventory(quick(helper))
	if err != nil {
		os.Exit(3)
	}
	go func() { _ = s.Run(context.Background()) }()
	_ = s.Watch(context.Background(), func(v device.Inventory) {
		if len(v.Devices) > 0 {
			_, _ = os.Stdout.WriteString(strconv.Itoa(s.Status().PID) + "\n")
		}
	})
}

// A helper does not outlive its daemon, even one that is killed.
func TestTheHelperEndsWithTheDaemon(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	temp := t.TempDir()
	cmd.Env = append(os.Environ(), hostEnv+"="+helper, "TMPDIR="+temp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid == 0 {
		t.Fatalf("the daemon says its helper is process %q", line)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if n != 1 || err != nil {
		t.Errorf("the helper outlives its daemon: %d, %v", n, err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A frozen process does not die of SIGKILL before it is thawed: that is how a
// helper looks that the kernel holds in the middle of a driver's call.
func TestTheKernelHoldsAKilledHelper(t *testing.T) {
	group := filepath.Join("/sys/fs/cgroup/freezer", "skiff-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no freezer to hold a process with: %v", err)
	}
	t.Cleanup(func() {
		// The kernel empties the group a moment after its processes are reaped.
		for deadline := time.Now().Add(patience); os.Remove(group) != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s cannot be removed", group)
				return
			}
		}
	})
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := quick(actingHelper(t, script{Devices: []string{"GPU-a"}}))
	cfg.KillWait = 200 * time.Millisecond
	s := run(t, cfg)
	await(t, s, "a device", with("Healthy"))
	pid := s.Status().PID
	set("cgroup.procs", strconv.Itoa(pid))
	set("freezer.state", "FROZEN")
	t.Cleanup(func() { _ = os.WriteFile(filepath.Join(group, "freezer.state"), []byte("THAWED"), 0o600) })

	await(t, s, "doubt", with("Unknown"))
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperHeld })
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the frozen helper is not held: %v", err)
	}
	if st := s.Status(); st.Starts != 1 || st.PID != 0 {
		t.Errorf("another helper beside the held one: %+v", st)
	}
	if v, err := s.Inventory(t.Context()); err != nil || healths(v) != "Unknown" {
		t.Errorf("the daemon is affected: %+v, %v", v, err)
	}
	if usage, _, err := s.Usage(t.Context()); err != nil || len(usage) != 0 {
		t.Errorf("usage of a held helper: %v, %v", usage, err)
	}
	set("freezer.state", "THAWED")
	await(t, s, "recovery", with("Healthy"))
	if st := s.Status(); st.Starts != 2 || st.PID == pid {
		t.Errorf("status %+v", st)
	}
}
