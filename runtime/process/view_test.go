package process_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
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
	v := newViews(t)
	outside := t.TempDir()
	for _, tt := range []struct{ name, network, root string }{{"kept", "", "/dev/shm"}, {"own", "none", "/.host"}} {
		volume, other := v.folder("volume-"+tt.name), v.folder("other-"+tt.name)
		if err := os.Symlink(tt.root+outside, filepath.Join(volume, "link")); err != nil {
			t.Fatal(err)
		}
		end, out, err := v.try(tt.name, tt.network, "ls /data/link",
			runtime.Mount{HostPath: volume, Path: "/data"}, runtime.Mount{HostPath: other, Path: "/data/link/" + tt.name})
		if err == nil && end.ExitCode == 0 { // the link leads nowhere in the view
			t.Errorf("%s: through the link it shows %q", tt.name, out)
		}
		if made, err := os.ReadDir(outside); err != nil || len(made) > 0 {
			t.Errorf("%s: on the host there is %v, %v", tt.name, made, err)
		}
	}
}

// TestSwappedLinks: a pod that shares a volume and swaps a folder of it with a link,
// over and over, leads nobody's mount out of the volume: neither what is mounted nor
// where.
func TestSwappedLinks(t *testing.T) {
	v := newViews(t)
	outside := v.folder("outside") // beside the volumes, so that links lead there that climb
	if err := os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	volume, other := v.folder("volume"), v.folder("other")
	for name, target := range map[string]string{"source": "../outside", "kept": "/dev/shm" + outside, "own": "/.host" + outside} {
		folder := filepath.Join(volume, name)
		if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "mine"), nil, 0o600), os.Symlink(target, folder+".link")); err != nil {
			t.Fatal(err)
		}
	}
	swap := func() {
		for _, name := range []string{"source", "kept", "own"} {
			folder := filepath.Join(volume, name)
			if err := unix.Renameat2(unix.AT_FDCWD, folder, unix.AT_FDCWD, folder+".link", unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
			}
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default: // mostly folders, or hardly a container would begin
				time.Sleep(200 * time.Microsecond)
				swap()
				if i%4 == 0 {
					time.Sleep(30 * time.Microsecond)
				}
				swap()
			}
		}
	}()
	started, refused := 0, 0
	for i := range 60 {
		for name, network := range map[string]string{"kept": "", "own": "none"} {
			end, out, err := v.try(fmt.Sprintf("%s-%d", name, i), network, "ls /data",
				runtime.Mount{HostPath: volume, SubPath: "source", Path: "/data", ReadOnly: true},
				runtime.Mount{HostPath: volume, Path: "/volume"}, runtime.Mount{HostPath: other, Path: "/volume/" + name + "/point"})
			switch {
			case err != nil || end.Reason == launch.ReasonCannotRun:
				refused++
			case out != "mine\n":
				t.Fatalf("%s %d shows %q", name, i, out)
			default:
				started++
			}
		}
	}
	close(stop)
	<-stopped
	t.Logf("%d containers began, %d were refused", started, refused)
	if started == 0 || refused == 0 {
		t.Errorf("%d containers began and %d were refused; it proves nothing", started, refused)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("on the host there is %v, %v", left, err)
	}
	if out := v.run("at-rest", "", "ls /data", runtime.Mount{HostPath: volume, SubPath: "source", Path: "/data"}); out != "mine\n" {
		t.Errorf("at rest it shows %q", out)
	}
	swap()
	if end, out, err := v.try("link", "", "ls /data", runtime.Mount{HostPath: volume, SubPath: "source", Path: "/data"}); err == nil && end.Reason != launch.ReasonCannotRun {
		t.Errorf("through a link it shows %q", out)
	}
}

// views runs containers whose mounts are what matters.
type views struct {
	t     *testing.T
	state string
	b     *process.Backend
	img   runtime.Image
}

func newViews(t *testing.T) *views {
	t.Helper()
	v := &views{t: t, state: t.TempDir()}
	v.b = open(t, process.Config{StateDir: v.state, LauncherPath: launcher(t)})
	if caps, err := v.b.Capabilities(t.Context()); err != nil || !caps.Mounts {
		t.Skipf("no namespaces here: %v %v", caps.Notes, err)
	}
	var err error
	if v.img, err = v.b.PrepareImage(t.Context(), runtime.ImageRequest{Ref: "alpine"}, nil); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *views) folder(name string) string {
	v.t.Helper()
	dir := filepath.Join(v.state, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		v.t.Fatal(err)
	}
	return dir
}

// run is try of what must work.
func (v *views) run(name, network, script string, mounts ...runtime.Mount) string {
	v.t.Helper()
	end, out, err := v.try(name, network, script, mounts...)
	if err != nil || end.ExitCode != 0 {
		v.t.Fatalf("%s: %+v, %q, %v", name, end, out, err)
	}
	return out
}

// try runs a script in a container of its own, and says how it ended.
func (v *views) try(name, network, script string, mounts ...runtime.Mount) (end launch.ExitRecord, out string, err error) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	defer cancel()
	pod := v.folder("pod-" + name)
	id, err := v.b.Create(ctx, runtime.ContainerSpec{
		Name: name, Image: v.img, PodDir: pod, Container: "main", Network: network, Mounts: mounts,
	})
	if err != nil {
		return end, "", err
	}
	defer func() {
		if err := errors.Join(v.b.Stop(ctx, id, 0), v.b.Remove(ctx, id)); err != nil {
			v.t.Error(err)
		}
	}()
	if err = v.b.Start(ctx, id); err == nil {
		err = v.b.Launch(ctx, id, launch.Command{ID: name, Argv: []string{"/bin/sh", "-c", script}})
	}
	if err != nil {
		return end, "", err
	}
	h := host.New()
	defer h.Close() //nolint:errcheck // A test's own.
	var text strings.Builder
	for e, err := range h.OpenLog(ctx, launch.ControlDir(pod, "main"), host.LogOptions{Follow: true}) {
		if err != nil {
			return end, "", err
		}
		text.Write(e.Text)
		text.WriteByte('\n')
	}
	r, ok, err := host.ReadExit(launch.ControlDir(pod, "main"))
	if err == nil && !ok {
		err = errors.New("it ended without a record")
	}
	if err != nil {
		return end, "", err
	}
	return *r, text.String(), nil
}
