package process_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/process"
)

// TestWhatACommandSees holds the view to what it promises about secrets and
// the machine.
func TestWhatACommandSees(t *testing.T) {
	t.Setenv("SKIFF_TEST_SECRET", "of the daemon")
	// Not below /tmp, which is hidden by itself.
	state, err := os.MkdirTemp("/var", "skiff-test-") // See above.
	if err != nil {
		state = t.TempDir() // not root
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(state, "admin.token"), []byte("SECRET"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, process.Config{StateDir: state, LauncherPath: launcher(t)})
	if caps, err := b.Capabilities(t.Context()); err != nil || !caps.Mounts {
		t.Skipf("no namespaces here: %v %v", caps.Notes, err)
	}
	img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"state folder":          `test -e ` + state + `/admin.token`,
		"homes":                 `ls -A /root /home | grep -v : | grep .`,
		"engine socket":         `test -e /var/run/docker.sock -o -e /run/docker.sock`,
		"daemon's environment":  `env | grep SKIFF_TEST_SECRET`,
		"launcher's files":      `ls /proc/1/cwd/ 2>/dev/null | grep . || cat /proc/1/fd/* 2>/dev/null | grep . || readlink /proc/1/fd/3`,
		"launcher's memory":     `cat /proc/1/environ 2>/dev/null | grep .`,
		"other processes":       `ls /proc | grep -E '^[0-9]+$' | grep -vE '^([0-9]|[0-9][0-9])$'`,
		"host's temporary":      `test -e ` + filepath.Dir(t.TempDir()),
		"kernel settings":       `sh -c 'echo 1 > /proc/sys/kernel/sysrq' 2>/dev/null || echo b > /proc/sysrq-trigger 2>/dev/null`,
		"host's folders":        `touch /usr/x /etc/x /var/x 2>/dev/null; test -e /usr/x -o -e /etc/x -o -e /var/x`,
		"remount":               `mount -o remount,rw /usr 2>/dev/null || mount -o remount,rw,bind /usr 2>/dev/null`,
		"unmask":                `umount /run 2>/dev/null || umount ` + state + ` 2>/dev/null || umount /home 2>/dev/null`,
		"disks":                 `ls /dev | grep -E '^(sd|vd|nvme|loop|mem|kmsg)'`,
		"new device":            `mknod /tmp/disk b 8 0 2>/dev/null && cat /tmp/disk >/dev/null`,
		"host's root":           `ls -A /.host /old_root/etc 2>/dev/null | grep .`,
		"launcher's other root": `ls -d /proc/1/root/dev/shm/etc /proc/1/task/*/root/dev/shm/etc /proc/1/task/*/cwd/etc 2>/dev/null | grep .`,
		"launcher's signals":    `kill -KILL 1 2>/dev/null; kill -STOP 1 2>/dev/null; grep -E '^State:.(T|Z)' /proc/1/status`,
		"new privileges by uid": `unshare --user --map-root-user mount -t tmpfs x /usr 2>/dev/null && test ! -e /usr/bin/env`,
	} {
		t.Run(name, func(t *testing.T) {
			r, out := run(t, b, strings.NewReplacer(" ", "-", "'", "").Replace(name), img, "/bin/sh", "-c", script)
			if r.ExitCode == 0 {
				t.Errorf("it can: %q", out)
			}
		})
	}
}

func TestNoNetwork(t *testing.T) {
	b := open(t, process.Config{StateDir: t.TempDir(), LauncherPath: launcher(t)})
	if caps, err := b.Capabilities(t.Context()); err != nil || !caps.Mounts {
		t.Skipf("no namespaces here: %v %v", caps.Notes, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pod := t.TempDir()
	spec := runtime.ContainerSpec{Name: "alone", Image: img, PodDir: pod, Container: "main", Network: "none"}
	r, out := runSpec(t, b, spec, "/bin/sh", "-c", "grep -c : /proc/net/dev; grep -q lo: /proc/net/dev")
	if r.ExitCode != 0 || !strings.HasPrefix(out, "1\n") {
		t.Errorf("got %+v, %q", r, out)
	}
}

func TestRefusedMounts(t *testing.T) {
	b := open(t, process.Config{StateDir: t.TempDir(), LauncherPath: launcher(t)})
	dir := t.TempDir()
	for name, m := range map[string]runtime.Mount{
		"the root":    {HostPath: dir, Path: "/"},
		"kernel":      {HostPath: dir, Path: "/proc/x"},
		"devices":     {HostPath: dir, Path: "/dev/sda"},
		"relative":    {HostPath: dir, Path: "x"},
		"a device":    {HostPath: "/dev/null", Path: "/x"},
		"not there":   {HostPath: dir + "/none", Path: "/x"},
		"up and away": {HostPath: dir, Path: "/x/../proc"},
	} {
		_, err := b.Create(t.Context(), runtime.ContainerSpec{
			Name: "bad", PodDir: t.TempDir(), Container: "main", Mounts: []runtime.Mount{m},
		})
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestLinksToTheHost: a link in a volume does not lead a later container's mount
// point onto the host, whichever launcher builds the view.
func TestLinksToTheHost(t *testing.T) {
	state := t.TempDir()
	b := open(t, process.Config{StateDir: state, LauncherPath: launcher(t)})
	if caps, err := b.Capabilities(t.Context()); err != nil || !caps.Mounts {
		t.Skipf("no namespaces here: %v %v", caps.Notes, err)
	}
	img, err := b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	for _, tt := range []struct{ name, network, root string }{{"kept", "", "/dev/shm"}, {"own", "none", "/.host"}} {
		volume, other := filepath.Join(state, "volume-"+tt.name), filepath.Join(state, "other-"+tt.name)
		for _, dir := range []string{volume, other} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(tt.root+host, filepath.Join(volume, "link")); err != nil {
			t.Fatal(err)
		}
		id, err := b.Create(t.Context(), runtime.ContainerSpec{
			Name: tt.name, Image: img, PodDir: filepath.Join(state, "pod-"+tt.name), Container: "main", Network: tt.network,
			Mounts: []runtime.Mount{{HostPath: volume, Path: "/data"}, {HostPath: other, Path: "/data/link/" + tt.name}},
		})
		if err == nil {
			err = b.Start(t.Context(), id)
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var end runtime.Container
		_ = b.Watch(ctx, func(c runtime.Container) {
			if c.ID == id && (c.State == runtime.StateExited || c.State == runtime.StateLost) {
				end = c
				cancel()
			}
		})
		cancel()
		if end.Reason != launch.ReasonCannotRun || !strings.Contains(end.Message, "out of the container") {
			t.Errorf("%s: it ended with %s: %s", tt.name, end.Reason, end.Message)
		}
		if made, err := os.ReadDir(host); err != nil || len(made) > 0 {
			t.Errorf("%s: on the host there is %v, %v", tt.name, made, err)
		}
	}
}
