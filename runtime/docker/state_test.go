package docker

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/launch"
)

// leave puts what a launcher left into a control folder.
func leave(t *testing.T, dir string, files map[string]any) {
	t.Helper()
	for name, v := range files {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestJudge: what the engine says, what is on disk, and what is believed.
func TestJudge(t *testing.T) {
	now := time.Now().UTC()
	record := func(code int, reason string) launch.ExitRecord {
		return launch.ExitRecord{Version: 1, CommandID: "a", ExitCode: code, Reason: reason, StartedAt: now, FinishedAt: now}
	}
	dead := map[string]any{launch.LockFile: ""}
	with := func(r launch.ExitRecord) map[string]any {
		return map[string]any{launch.LockFile: "", launch.ExitFile: r}
	}
	for _, tt := range []struct {
		name  string
		facts facts
		files map[string]any
		why   string
		want  runtime.State
		// reason is in Reason, text in Message.
		reason, text string
		oom          bool
	}{
		{"success", facts{status: "exited"}, with(record(0, launch.ReasonCompleted)), "", runtime.StateExited, "", "", false},
		{"the engine is late", facts{status: "running"}, with(record(0, launch.ReasonCompleted)), "", runtime.StateExited, "", "", false},
		{"removed, with a record", facts{status: "removing"}, with(record(3, launch.ReasonError)), "gone", runtime.StateExited, "", "", false},
		{"code 0 without a record is no success", facts{status: "exited", exitCode: 0}, dead, "", runtime.StateLost, reasonLost, "left no exit record", false},
		{"removed without a record", facts{status: "removing"}, dead, "somebody removed it", runtime.StateLost, reasonLost, "somebody removed it", false},
		{"killed for memory without a record", facts{status: "exited", exitCode: 137, oom: true}, dead, "", runtime.StateLost, reasonOOM, "memory", true},
		{"a child killed for memory is no failure", facts{status: "exited", oom: true}, with(record(0, launch.ReasonCompleted)), "", runtime.StateExited, "", "", false},
		{"killed for memory", facts{status: "exited", oom: true}, with(record(137, launch.ReasonError)), "", runtime.StateExited, reasonOOM, "memory", true},
		{"our own kill is not the kernel's", facts{status: "exited", oom: true}, with(record(137, launch.ReasonStopped)), "", runtime.StateExited, "", "", false},
		{"stopped by somebody else", facts{status: "exited"}, with(record(143, launch.ReasonShutdown)), "", runtime.StateExited, launch.ReasonShutdown, "from outside", false},
		{"created", facts{status: "created", full: true}, nil, "", runtime.StateCreated, "", "", false},
		{"could not be started", facts{status: "created", full: true, exitCode: 128, err: "no device driver"}, nil, "", runtime.StateExited, launch.ReasonCannotRun, "no device driver", false},
		{"an error without a code is none yet", facts{status: "created", full: true, err: "x"}, nil, "", runtime.StateCreated, "", "", false},
		{"running, launcher not up yet", facts{status: "running"}, nil, "", runtime.StateWaiting, "", "", false},
		{"a record that is none", facts{status: "exited", full: true}, map[string]any{launch.LockFile: "", launch.ExitFile: "nonsense"}, "", runtime.StateLost, reasonForgery, "", false},
		{"a success without a command", facts{status: "exited", full: true}, with(launch.ExitRecord{Version: 1, Reason: launch.ReasonCompleted, FinishedAt: now}), "", runtime.StateLost, reasonForgery, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newTestBackend(t)
			b.api = silentEngine{}
			tt.facts.control, tt.facts.name, tt.facts.full = t.TempDir(), "c", true
			leave(t, tt.facts.control, tt.files)
			c, err := b.judge(t.Context(), tt.facts, tt.why)
			if err != nil {
				t.Fatal(err)
			}
			if c.State != tt.want || c.Reason != tt.reason || !strings.Contains(c.Message, tt.text) || c.OOMKilled != tt.oom {
				t.Errorf("got %s %q %q oom=%v, want %s %q %q oom=%v", c.State, c.Reason, c.Message, c.OOMKilled, tt.want, tt.reason, tt.text, tt.oom)
			}
			if (c.State == runtime.StateExited) != (c.Exit != nil) {
				t.Errorf("state %s with record %+v", c.State, c.Exit)
			}
		})
	}
}

// silentEngine has nothing to say.
type silentEngine struct{ *fakeEngine }

func (silentEngine) ContainerLogs(context.Context, string, int) (io.ReadCloser, error) {
	return nil, notFound{os.ErrNotExist}
}

func TestNewsNeverGoBack(t *testing.T) {
	w := &watcher{b: newTestBackend(t), ctx: t.Context(), followers: map[string]*follower{}}
	f := &follower{meta: meta{id: "1"}, wake: make(chan struct{}, 1), stop: func() {}}
	w.followers["1"] = f
	for _, tt := range []struct {
		news runtime.Container
		want runtime.State
		ip   string
	}{
		{runtime.Container{ID: "1", State: runtime.StateWaiting, IP: "10.0.0.1"}, runtime.StateWaiting, "10.0.0.1"},
		{runtime.Container{ID: "1", State: runtime.StateCreated}, runtime.StateWaiting, "10.0.0.1"},
		{runtime.Container{ID: "1", State: runtime.StateRunning}, runtime.StateRunning, "10.0.0.1"},
		{runtime.Container{ID: "1", State: runtime.StateRunning, IP: "10.0.0.2"}, runtime.StateRunning, "10.0.0.2"},
		{runtime.Container{ID: "1", State: runtime.StateExited, Exit: &launch.ExitRecord{}}, runtime.StateExited, "10.0.0.2"},
		{runtime.Container{ID: "1", State: runtime.StateLost}, runtime.StateExited, "10.0.0.2"},
	} {
		w.mu.Lock()
		w.publish(f, tt.news)
		w.mu.Unlock()
		if f.last.State != tt.want || f.last.IP != tt.ip {
			t.Errorf("after %s it is %s at %s, want %s at %s", tt.news.State, f.last.State, f.last.IP, tt.want, tt.ip)
		}
	}
	w.drop("1")
	w.mu.Lock()
	w.publish(f, runtime.Container{ID: "1", State: runtime.StateLost})
	w.mu.Unlock()
	if len(w.followers) != 0 {
		t.Error("a removed container came back")
	}
}

func TestLocateGroup(t *testing.T) {
	for _, tt := range []struct {
		name, mounts, cgroup string
		want                 group
	}{
		{"v1", `30 1 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 1 0:3 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`,
			"9:name=systemd:/x\n8:pids:/docker/abc\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
			group{"/sys/fs/cgroup/cpu,cpuacct/docker/abc", "/sys/fs/cgroup/memory/docker/abc", "/sys/fs/cgroup/pids/docker/abc"}},
		{"v2", `30 1 0:1 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw`,
			"0::/system.slice/docker-abc.scope\n",
			group{"/sys/fs/cgroup/system.slice/docker-abc.scope", "/sys/fs/cgroup/system.slice/docker-abc.scope", "/sys/fs/cgroup/system.slice/docker-abc.scope"}},
		{"mounted from below", `30 1 0:1 /outer /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw`,
			"0::/outer/docker/abc\n",
			group{"/sys/fs/cgroup/docker/abc", "/sys/fs/cgroup/docker/abc", "/sys/fs/cgroup/docker/abc"}},
	} {
		got, err := locateGroup(strings.NewReader(tt.mounts), strings.NewReader(tt.cgroup))
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
	if _, err := locateGroup(strings.NewReader(""), strings.NewReader("0::/x\n")); err == nil {
		t.Error("a machine without cgroups has one")
	}
}

func TestReadStats(t *testing.T) {
	files := func(m map[string]string) string {
		dir := t.TempDir()
		for name, text := range m {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	v1 := files(map[string]string{"cpuacct.usage": "5000\n", "memory.usage_in_bytes": "1000\n", "memory.stat": "cache 1\ntotal_inactive_file 300\n", "pids.current": "3\n"})
	v2 := files(map[string]string{"cpu.stat": "usage_usec 5\nuser_usec 1\n", "memory.current": "1000\n", "memory.stat": "anon 1\ninactive_file 300\n", "pids.current": "3\n"})
	for name, dir := range map[string]string{"v1": v1, "v2": v2} {
		s, err := readGroup(group{dir, dir, dir})
		if err != nil || s.CPUNanos != 5000 || s.MemoryBytes != 700 || s.Pids != 3 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if _, err := readGroup(group{t.TempDir(), v1, v1}); err == nil {
		t.Error("a group that is gone has figures")
	}
	for name, text := range map[string]string{
		"v1": `{"cpu_stats":{"cpu_usage":{"total_usage":5000}},"memory_stats":{"usage":1000,"stats":{"total_inactive_file":300,"inactive_file":1}},"pids_stats":{"current":3}}`,
		"v2": `{"cpu_stats":{"cpu_usage":{"total_usage":5000}},"memory_stats":{"usage":1000,"stats":{"inactive_file":300}},"pids_stats":{"current":3}}`,
	} {
		s, err := decodeStats(strings.NewReader(text))
		if err != nil || s.CPUNanos != 5000 || s.MemoryBytes != 700 || s.Pids != 3 {
			t.Errorf("the engine's figures, %s: %+v, %v", name, s, err)
		}
	}
}

func TestDoctor(t *testing.T) {
	notes := strings.Join((&engine{api: "1.40", info: dockerapi.Info{SecurityOptions: []string{"name=userns"}}}).doctor(), "\n")
	for _, want := range []string{"older than", "live-restore", "memory limits", "CPU limits", "limit on processes", "userns-remap", "seccomp", "nvidia-ctk"} {
		if !strings.Contains(notes, want) {
			t.Errorf("doctor does not speak of %q:\n%s", want, notes)
		}
	}
	good := &engine{api: "1.51", gpu: gpuCDI, info: dockerapi.Info{MemoryLimit: true, CPUCfsQuota: true, PidsLimit: true,
		LiveRestoreEnabled: true, SecurityOptions: []string{"name=seccomp,profile=builtin"}}}
	if notes := good.doctor(); len(notes) != 1 {
		t.Errorf("a good engine gets %q", notes)
	}
}
