package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/process"
)

// keepers opens a backend whose containers have a view, and an image for them.
func keepers(t *testing.T) (*process.Backend, string, runtime.Image) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("without root every container has a launcher of its own")
	}
	state := t.TempDir()
	b := open(t, process.Config{StateDir: state, LauncherPath: launcher(t)})
	if caps, err := b.Capabilities(t.Context()); err != nil || !caps.Mounts {
		t.Skipf("no namespaces here: %v %v", caps.Notes, err)
	}
	img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, state, img
}

// who prints an identity of the launcher's: its process id namespace and when it
// began, since the kernel gives a namespace the number of one that is gone.
const who = "echo $(readlink /proc/self/ns/pid) $(cut -d' ' -f22 /proc/1/stat)"

// TestKeptLeavesNothing has one container leave something behind and the next
// one of its namespace look for it. A launcher that can remove it serves both.
func TestKeptLeavesNothing(t *testing.T) {
	b, _, img := keepers(t)
	for i, tt := range []struct {
		name, leave, find string
		kept              bool
	}{
		{"nothing", `true`, `false`, true},
		{"a process", `setsid sleep 1000 & true`, `grep -l sleep /proc/[0-9]*/comm`, true},
		{"a temporary file", `touch /tmp/left && mkdir -m 0 /tmp/dir && touch /tmp/dir/.x`, `ls -A /tmp | grep .`, true},
		{"another temporary file", `touch /var/tmp/left`, `ls -A /var/tmp | grep .`, true},
		{"the temporary folder's mode", `chmod 700 /tmp`, `stat -c %a /tmp | grep -v 1777`, false},
		{"shared memory", `touch /dev/shm/left`, `ls -A /dev/shm | grep .`, true},
		{"a segment", `ipcmk -M 100`, `test $(wc -l < /proc/sysvipc/shm) -gt 1`, true},
		{"a file in the root", `touch /left`, `test -e /left`, false},
		{"a folder in the root", `mkdir /left`, `test -e /left`, false},
		{"a link that is gone", `rm -f /dev/stdout`, `test ! -e /dev/stdout`, false},
		{"a device's mode", `chmod 600 /dev/null`, `stat -c %a /dev/null | grep -v 666`, false},
		{"a terminal's mode", `chmod 600 /dev/pts/ptmx`, `stat -c %a /dev/pts/ptmx | grep -v 666`, false},
		{"a file in a hidden folder", `touch /root/left`, `ls -A /root | grep .`, false},
		{"the launcher's limits", `prlimit --pid 1 --core=0:0 --nofile=64:64`, `test $(ulimit -Hn) -eq 64`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := func(n int) runtime.ContainerSpec {
				return runtime.ContainerSpec{
					Name: fmt.Sprintf("c%d-%d", i, n), Namespace: fmt.Sprintf("n%d", i), Image: img,
					PodDir: filepath.Join(t.TempDir(), "pod"), Container: "main",
				}
			}
			first, out1 := runSpec(t, b, spec(1), "/bin/sh", "-c", who+"; "+tt.leave+" 2>&1")
			if first.ExitCode != 0 {
				t.Fatalf("it cannot be left: %d %s", first.ExitCode, out1)
			}
			process.AwaitIdle(t, b)
			second, out2 := runSpec(t, b, spec(2), "/bin/sh", "-c", who+"; "+tt.find)
			if second.ExitCode == 0 {
				t.Errorf("the next one sees it: %s", out2)
			}
			line1, _, _ := strings.Cut(out1, "\n")
			line2, _, _ := strings.Cut(out2, "\n")
			if kept := line1 == line2; kept != tt.kept {
				t.Errorf("the launcher served both: %v, want %v (%s, %s)", kept, tt.kept, line1, line2)
			}
		})
	}
}

// TestKeptApart: containers of two namespaces never have the same launcher, nor
// do those whose time is limited and those whose time is not.
func TestKeptApart(t *testing.T) {
	b, state, img := keepers(t)
	seen := map[string]string{}
	for i, tt := range []struct {
		namespace string
		limits    runtime.Resources
	}{
		{"a", runtime.Resources{}}, {"b", runtime.Resources{}}, {"a", runtime.Resources{CPUMilli: 500}},
	} {
		_, out := runSpec(t, b, runtime.ContainerSpec{
			Name: fmt.Sprintf("c%d", i), Namespace: tt.namespace, Image: img, Resources: tt.limits,
			PodDir: filepath.Join(state, fmt.Sprintf("pod%d", i)), Container: "main",
		}, "/bin/sh", "-c", who)
		process.AwaitIdle(t, b)
		if other, there := seen[out]; there {
			t.Errorf("%+v has the launcher of %s", tt, other)
		}
		seen[out] = fmt.Sprintf("%+v", tt)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(state, "kept")); err != nil || len(left) > 0 {
		t.Errorf("a closed backend leaves %v, %v", left, err)
	}
}

// TestKeptLimits: each container has its own limits, in whatever order they come.
func TestKeptLimits(t *testing.T) {
	b, state, img := keepers(t)
	if caps, err := b.Capabilities(t.Context()); err != nil || !caps.Limits {
		t.Skipf("no control groups here: %v %v", caps.Notes, err)
	}
	const show = `g() { grep -E "$1" /proc/self/cgroup | cut -d: -f3; }
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then d=/sys/fs/cgroup$(g '^0::'); cat $d/memory.max $d/pids.max
else cat /sys/fs/cgroup/memory$(g ':memory:')/memory.limit_in_bytes /sys/fs/cgroup/pids$(g ':pids:')/pids.max; fi`
	launchers := map[string]bool{}
	for i, tt := range []struct {
		memory, pids int64
		want         string
	}{
		{64 << 20, 0, "67108864\n4096\n"}, {0, 100, "none\n100\n"}, {128 << 20, 0, "134217728\n4096\n"}, {32 << 20, 0, "33554432\n4096\n"},
	} {
		_, out := runSpec(t, b, runtime.ContainerSpec{
			Name: fmt.Sprintf("c%d", i), Image: img, Resources: runtime.Resources{MemoryBytes: tt.memory, Pids: tt.pids},
			PodDir: filepath.Join(state, fmt.Sprintf("pod%d", i)), Container: "main",
		}, "/bin/sh", "-c", who+"; "+show)
		process.AwaitIdle(t, b)
		first, limits, _ := strings.Cut(out, "\n")
		launchers[first] = true
		limits = strings.NewReplacer("max\n", "none\n", "9223372036854771712\n", "none\n").Replace(limits)
		if limits != tt.want {
			t.Errorf("with %+v it is limited to %q", tt, limits)
		}
	}
	if len(launchers) != 1 {
		t.Errorf("%d launchers served them", len(launchers))
	}
}

// TestKeptMountPoints: a mount point that a keeper made is removed where it was
// made, and nowhere else: a command may put a link in the way that leads to the
// host once the command has ended.
func TestKeptMountPoints(t *testing.T) {
	b, state, img := keepers(t)
	host := t.TempDir()
	victim := filepath.Join(host, "point")
	for _, dir := range []string{victim, filepath.Join(state, "volume")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r, out := runSpec(t, b, runtime.ContainerSpec{
		Name: "c", Image: img, PodDir: filepath.Join(state, "pod"), Container: "main",
		Mounts: []runtime.Mount{{HostPath: filepath.Join(state, "volume"), Path: "/above/point"}},
	}, "/bin/sh", "-c", "mv /above /aside && ln -s /dev/shm"+host+" /above")
	if r.ExitCode != 0 {
		t.Fatalf("the link cannot be made: %d %s", r.ExitCode, out)
	}
	process.AwaitIdle(t, b)
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("the host lost a folder: %v", err)
	}
}
