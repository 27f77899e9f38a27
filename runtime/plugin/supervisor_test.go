package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/runtime/device"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// quick is a configuration with short deadlines and a machine without a driver.
func quick(helper string) Config {
	return Config{
		Path: helper, Root: fstest.MapFS{}, SMI: "none",
		StartTimeout: 5 * time.Second, CallTimeout: 2 * time.Second, ListTimeout: 2 * time.Second, BeatTimeout: time.Second,
		Quick: []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond}, Slow: []time.Duration{time.Hour},
	}
}

// run starts a supervisor and, at the test's end, holds it to return.
func run(t *testing.T, cfg Config) *Supervisor {
	t.Helper()
	s, err := NewInventory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("run does not return")
		}
	})
	return s
}

// await returns the first inventory that satisfies what.
func await(t *testing.T, s *Supervisor, what string, ok func(device.Inventory) bool) device.Inventory {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var found, last device.Inventory
	_ = s.Watch(ctx, func(v device.Inventory) {
		last = v
		if ctx.Err() == nil && ok(v) {
			found = v
			cancel()
		}
	})
	if !ok(found) {
		t.Fatalf("no inventory with %s came; the last is %+v; the helper: %+v", what, last, s.Status())
	}
	return found
}

func healths(v device.Inventory) string {
	var all []string
	for _, d := range v.Devices {
		all = append(all, string(d.Health))
	}
	return strings.Join(all, " ")
}

func with(want string) func(device.Inventory) bool {
	return func(v device.Inventory) bool { return healths(v) == want }
}

func noted(part string) func(device.Inventory) bool {
	return func(v device.Inventory) bool { return strings.Contains(strings.Join(v.Notes, "\n"), part) }
}

func TestInventoryOfAHelper(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a", "GPU-b"}, Links: [][]string{{"X", "NV4"}, {"NV4", "X"}}})
	cfg := quick(helper)
	cfg.Root = fstest.MapFS{
		"sys/bus/pci/devices/0000:02:00.0/numa_node":     {Data: []byte("1\n")},
		"sys/bus/pci/devices/0000:02:00.0/local_cpulist": {Data: []byte("8-15\n")},
	}
	s := run(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := s.Inventory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := device.Inventory{
		Devices: []device.Device{
			{UUID: "GPU-a", Index: 0, Model: "Acting GPU", MemoryBytes: 8 << 30, PCIBusID: "00000000:01:00.0", NUMA: -1, MIG: device.MIGDisabled, Health: device.Healthy},
			{UUID: "GPU-b", Index: 1, Model: "Acting GPU", MemoryBytes: 8 << 30, PCIBusID: "00000000:02:00.0", NUMA: 1, CPUAffinity: "8-15", MIG: device.MIGDisabled, Health: device.Healthy, Minor: 1},
		},
		Links: [][]device.Link{
			{{Kind: device.LinkSelf}, {Kind: device.LinkNVLink, Lanes: 4}}, {{Kind: device.LinkNVLink, Lanes: 4}, {Kind: device.LinkSelf}}},
		Source: "nvml", Driver: "999.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	if st := s.Status(); st.State != HelperRunning || st.Helper != "acting" || st.PID == 0 || st.Starts != 1 || len(st.Missing) != 1 {
		t.Errorf("status %+v", st)
	}
	usage, processes, err := s.Usage(ctx)
	if err != nil || len(usage) != 2 || usage[1] != (device.Usage{UUID: "GPU-b", UsedBytes: 1 << 20, BusyPercent: 42}) ||
		len(processes) != 2 || processes[0] != (device.Process{UUID: "GPU-a", PID: 4711, UsedBytes: 1 << 20}) {
		t.Errorf("usage %v, %v, %v", usage, processes, err)
	}
}

func TestDevicesComeAndGo(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}, Links: [][]string{{"X"}}})
	s := run(t, quick(helper))
	await(t, s, "one device", with("Healthy"))
	follow(t, helper, script{Devices: []string{"GPU-a", "GPU-b"}, Links: [][]string{{"X", "PIX"}, {"PIX", "X"}}})
	await(t, s, "two devices", with("Healthy Healthy"))
	follow(t, helper, script{Devices: []string{"GPU-b"}, Links: [][]string{{"X"}}})
	v := await(t, s, "one lost", with("Healthy Unhealthy"))
	if v.Devices[1].UUID != "GPU-a" || !strings.Contains(v.Devices[1].HealthReason, "no longer answers") {
		t.Errorf("the lost device: %+v", v.Devices[1])
	}
	if err := v.Check(); err != nil || v.Links[0][1].Kind != device.LinkUnknown {
		t.Errorf("links of a lost device: %v, %v", v.Links, err)
	}
	follow(t, helper, script{Devices: []string{"GPU-a", "GPU-b"}})
	await(t, s, "it back", with("Healthy Healthy"))
}

func TestFaults(t *testing.T) {
	devices := []string{"GPU-a", "GPU-b"}
	for _, c := range []struct {
		name string
		uuid string
		xid  uint64
		want string
	}{
		{"a program's own", "GPU-b", 31, "Healthy Healthy"},
		{"off the bus", "GPU-b", 79, "Healthy Unhealthy"},
		{"unnamed device", "", 48, "Unhealthy Unhealthy"},
		{"may pass", "GPU-a", 62, "Suspect Healthy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			helper := actingHelper(t, script{Devices: devices, FaultUUID: c.uuid, FaultXID: c.xid})
			s := run(t, quick(helper))
			if c.want == "Healthy Healthy" {
				// Beats pass after the fault without a change; a second look shows it.
				await(t, s, c.want, with(c.want))
				follow(t, helper, script{Devices: append(devices, "GPU-c"), FaultUUID: c.uuid, FaultXID: c.xid})
				await(t, s, "all healthy", with("Healthy Healthy Healthy"))
				return
			}
			v := await(t, s, c.want, with(c.want))
			for _, d := range v.Devices {
				if (d.HealthReason == "") != (d.Health == device.Healthy) {
					t.Errorf("%s is %s because of %q", d.UUID, d.Health, d.HealthReason)
				}
			}
		})
	}
}

func TestASuspicionPasses(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}, FaultUUID: "GPU-a", FaultXID: 62})
	cfg := quick(helper)
	cfg.SuspectFor = 200 * time.Millisecond
	s := run(t, cfg)
	await(t, s, "a suspect", with("Suspect"))
	await(t, s, "its recovery", with("Healthy"))
}

// Every way to die before a first list leaves no devices, a reason, and a daemon
// that goes on; after three quick restarts it is left alone.
func TestAHelperThatFailsFromTheStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		s     script
		state HelperState
		lives int
		note  string
	}{
		{"exits at once", script{Start: "exit"}, HelperFailed, 4, "The inventory helper failed"},
		{"talks nonsense", script{Start: "garbage"}, HelperFailed, 4, "The inventory helper failed"},
		{"another contract", script{Start: "version"}, HelperRefused, 1, "another version of the contract"},
		{"exits when greeted", script{Describe: "exit"}, HelperFailed, 4, "The inventory helper failed"},
		{"too large a greeting", script{Describe: "huge"}, HelperFailed, 4, "larger than 1048576 bytes"},
		{"exits when asked", script{List: "exit"}, HelperFailed, 4, "The inventory helper failed"},
		{"too large a list", script{List: "huge"}, HelperFailed, 4, "larger than 1048576 bytes"},
		{"two of one name", script{Devices: []string{"GPU-a", "GPU-a"}}, HelperFailed, 4, "makes no sense: devices[1].uuid"},
		{"real devices named as fakes", script{Devices: []string{"GPU-FAKE-a"}}, HelperFailed, 4, "makes no sense: devices[0].uuid"},
		{"links that are none", script{Devices: []string{"GPU-a"}, Links: [][]string{{"Y"}}}, HelperFailed, 4, "makes no sense: links[0][0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			helper := actingHelper(t, c.s)
			s := run(t, quick(helper))
			v := await(t, s, "a reason", noted(c.note))
			if len(v.Devices) != 0 || v.Source != "none" {
				t.Errorf("devices out of nowhere: %+v", v)
			}
			awaitStatus(t, s, func(st Status) bool { return st.State == c.state && st.Starts == c.lives })
			if n := lives(scriptFile(helper)); n != c.lives {
				t.Errorf("it was started %d times, want %d", n, c.lives)
			}
			if usage, processes, err := s.Usage(t.Context()); err != nil || len(usage)+len(processes) != 0 {
				t.Errorf("usage without a helper: %v, %v, %v", usage, processes, err)
			}
		})
	}
}

func awaitStatus(t *testing.T, s *Supervisor, ok func(Status) bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(s.Status()) {
		if time.Now().After(deadline) {
			t.Fatalf("the helper's state stays %+v", s.Status())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAHelperThatHangsFromTheStart(t *testing.T) {
	for _, c := range []struct {
		name string
		s    script
	}{
		{"before it shakes hands", script{Start: "hang"}},
		{"when greeted", script{Describe: "hang"}},
		{"when asked", script{List: "hang"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := quick(actingHelper(t, c.s))
			cfg.StartTimeout, cfg.CallTimeout, cfg.ListTimeout = 2*time.Second, time.Second, time.Second
			cfg.Quick = []time.Duration{time.Hour}
			cfg.Root = fstest.MapFS{procInformation: {Data: []byte(information)}}
			s := run(t, cfg)
			v := await(t, s, "a reason", noted("did not answer and was ended"))
			if healths(v) != "Unknown" || v.Source != "proc" {
				t.Errorf("nobody knows of the devices, but the inventory says %+v", v)
			}
			awaitStatus(t, s, func(st Status) bool { return st.State == HelperFailed && st.PID == 0 })
		})
	}
}

// A crash later on makes the devices unknown for as long as it takes to start
// another one.
func TestACrashIsMended(t *testing.T) {
	for _, end := range []string{"exit", "end"} {
		t.Run(end, func(t *testing.T) {
			helper := actingHelper(t, script{Devices: []string{"GPU-a"}})
			cfg := quick(helper)
			cfg.Quick = []time.Duration{300 * time.Millisecond}
			s := run(t, cfg)
			await(t, s, "a device", with("Healthy"))
			follow(t, helper, script{Devices: []string{"GPU-a"}, Watch: end, Lives: 1})
			v := await(t, s, "doubt", with("Unknown"))
			if !noted("The inventory helper failed")(v) || v.Devices[0].HealthReason == "" {
				t.Errorf("no reason is given: %+v", v)
			}
			await(t, s, "recovery", with("Healthy"))
			if st := s.Status(); st.Starts != 2 || st.Err != "" {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// A stopped process is what a hang in the driver looks like from outside.
func TestAHangIsEnded(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}})
	s := run(t, quick(helper))
	await(t, s, "a device", with("Healthy"))
	pid := s.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	v := await(t, s, "doubt", with("Unknown"))
	if !noted("did not answer and was ended")(v) {
		t.Errorf("no reason is given: %+v", v)
	}
	await(t, s, "recovery", with("Healthy"))
	if now := s.Status().PID; now == pid || now == 0 {
		t.Errorf("the helper is process %d, was %d", now, pid)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the stopped helper is still there: %v", err)
	}
}

func TestAHangingCallIsEnded(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}, Usage: "hang", Lives: 1})
	cfg := quick(helper)
	cfg.CallTimeout = 500 * time.Millisecond
	s := run(t, cfg)
	await(t, s, "a device", with("Healthy"))
	if _, _, err := s.Usage(t.Context()); !errors.Is(err, errHung) {
		t.Errorf("got %v, want a hang", err)
	}
	awaitStatus(t, s, func(st Status) bool { return st.Starts == 2 && st.State == HelperRunning })
	usage, _, err := s.Usage(t.Context())
	if err != nil || len(usage) != 1 {
		t.Errorf("after the restart: %v, %v", usage, err)
	}
}

// A caller that gives up early does not cost the helper its life.
func TestAnImpatientCaller(t *testing.T) {
	s := run(t, quick(actingHelper(t, script{Devices: []string{"GPU-a"}, Usage: "hang"})))
	await(t, s, "a device", with("Healthy"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.Usage(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's own deadline", err)
	}
	if st := s.Status(); st.Starts != 1 || st.State != HelperRunning {
		t.Errorf("status %+v", st)
	}
}

func TestAReplacedHelperIsRefused(t *testing.T) {
	helper := actingHelper(t, script{Devices: []string{"GPU-a"}})
	cfg := quick(helper)
	s, err := NewInventory(cfg)
	if err != nil {
		t.Fatal(err)
	}
	other := helper + ".new"
	if err := os.WriteFile(other, []byte("#!/bin/sh\ntouch "+helper+".ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, helper); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	await(t, s, "a refusal", noted("was replaced since skiff started; restart skiff"))
	awaitStatus(t, s, func(st Status) bool { return st.State == HelperRefused })
	if _, err := os.Stat(helper + ".ran"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the other file was run")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAHelperThatAnyoneMayChangeIsRefused(t *testing.T) {
	helper := actingHelper(t, script{})
	if err := os.Chmod(helper, 0o777); err != nil {
		t.Fatal(err)
	}
	s := run(t, quick(helper))
	await(t, s, "a refusal", noted("anyone may write to it"))
}

func TestTheHelperKnowsNothingOfTheDaemon(t *testing.T) {
	t.Setenv("SKIFF_TOKEN", "secret")
	t.Setenv("LD_LIBRARY_PATH", "/usr/lib/wsl/lib")
	helper := actingHelper(t, script{Start: "environ", Devices: []string{"GPU-a"}})
	s := run(t, quick(helper))
	await(t, s, "a device", with("Healthy"))
	data, err := os.ReadFile(scriptFile(helper) + ".environ")
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch {
		case key == "PATH", key == "LANG", key == "LD_LIBRARY_PATH" && value == "/usr/lib/wsl/lib",
			strings.HasPrefix(key, "PLUGIN_"), key == "SKIFF_INVENTORY_HELPER":
		default:
			t.Errorf("the helper's environment holds %s", key)
		}
	}
	pid := s.Status().PID
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("the helper's process group is %d, %v; want its own, %d", group, err, pid)
	}
}

func TestAChattyHelperIsHeard(t *testing.T) {
	s := run(t, quick(actingHelper(t, script{Start: "noisy", Devices: []string{"GPU-a"}})))
	await(t, s, "a device", with("Healthy"))
}

// Nothing of a helper's is left after a run: no process, no socket folder.
func TestNothingIsLeft(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	s, err := NewInventory(quick(actingHelper(t, script{Devices: []string{"GPU-a"}})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	await(t, s, "a device", with("Healthy"))
	pid := s.Status().PID
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	left, err := filepath.Glob(filepath.Join(temp, "skiff-helper-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if st := s.Status(); st.State != HelperStopped || st.PID != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestInventoryWaitsForTheFirstLookOnly(t *testing.T) {
	s, err := NewInventory(quick(""))
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := s.Inventory(ctx); !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause", err)
	}
	if err := s.Watch(ctx, func(device.Inventory) { t.Error("told of an inventory before there is one") }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestPauses(t *testing.T) {
	s, err := NewInventory(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for n := range 9 {
		got = append(got, s.pause(n).String())
	}
	if want := "[250ms 500ms 1s 1m0s 2m0s 5m0s 10m0s 10m0s 10m0s]"; fmt.Sprint(got) != want {
		t.Errorf("pauses %v, want %s", got, want)
	}
}
