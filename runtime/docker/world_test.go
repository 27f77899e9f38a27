//go:build docker

package docker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

func (r *rig) image(ref string) runtime.Image {
	r.Helper()
	img, err := r.b.PrepareImage(r.Context(), runtime.ImageRequest{Ref: ref, Policy: runtime.PullNever}, nil)
	if err != nil {
		r.Fatal(err)
	}
	return img
}

func (r *rig) spec() runtime.ContainerSpec {
	r.Helper()
	return runtime.ContainerSpec{
		Name: "skiff-test-" + uuid.NewString()[:13], Image: r.image(busybox), PodDir: r.podDir(r.T), Container: "main",
		Network: "none", StopGrace: 2 * time.Second,
	}
}

func (r *rig) start(spec runtime.ContainerSpec) string {
	r.Helper()
	id, err := r.b.Create(r.Context(), spec)
	if err == nil {
		err = r.b.Start(r.Context(), id)
	}
	if err != nil {
		r.Fatal(err)
	}
	return id
}

func sh(script string) launch.Command {
	return launch.Command{ID: "a", Argv: []string{"/bin/sh", "-c", script}}
}

func (r *rig) launch(spec runtime.ContainerSpec, script string) string {
	r.Helper()
	id := r.start(spec)
	if err := r.b.Launch(r.Context(), id, sh(script)); err != nil {
		r.Fatal(err)
	}
	return id
}

var errSeen = errors.New("seen")

// await watches until a container is in one of the states.
func (r *rig) await(id string, states ...runtime.State) runtime.Container {
	r.Helper()
	ctx, stop := context.WithTimeout(r.Context(), time.Minute)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var found, last runtime.Container
	err := r.b.Watch(ctx, func(c runtime.Container) {
		if c.ID != id || found.ID != "" {
			return
		}
		last = c
		for _, s := range states {
			if c.State == s {
				found = c
				cancel(errSeen)
			}
		}
	})
	if !errors.Is(err, errSeen) {
		r.Fatalf("wait for %v: %v; it is %+v", states, err, last)
	}
	return found
}

func (r *rig) end(id string) runtime.Container {
	r.Helper()
	return r.await(id, runtime.StateExited, runtime.StateLost)
}

// run runs a script and returns its output; it must succeed.
func (r *rig) run(spec runtime.ContainerSpec, script string) string {
	r.Helper()
	c := r.end(r.launch(spec, script))
	out := r.log(spec)
	if c.Exit == nil || c.Exit.ExitCode != 0 {
		r.Fatalf("it ended as %+v with %+v and said %q", c, c.Exit, out)
	}
	return out
}

func (r *rig) log(spec runtime.ContainerSpec) string {
	r.Helper()
	h := host.New()
	defer func() { _ = h.Close() }()
	var out strings.Builder
	for e, err := range h.OpenLog(r.Context(), launch.ControlDir(spec.PodDir, spec.Container), host.LogOptions{}) {
		if err != nil {
			r.Fatal(err)
		}
		out.Write(e.Text)
		if !e.Partial {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// TestIsolation looks at a container from within.
func TestIsolation(t *testing.T) {
	r := newRig(t, "", nil)
	spec := r.spec()
	spec.Resources = runtime.Resources{CPUMilli: 64_000, MemoryBytes: 1 << 50, Pids: 77}
	out := r.run(spec, `grep -E '^(Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status
		cat /proc/1/cmdline | tr '\000' ' '; echo
		cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
		df -k /dev/shm | tail -1 | awk '{print "shm " $2}'
		ls /dev | grep -cE '^(mem|kmsg|nvidia.*|sd.|vd.)$'
		ls /var/run/docker.sock 2>&1 | grep -c 'No such'
		mount | grep -c ' /skiff/launcher .*[(,]ro[,)]'
		ip link 2>/dev/null | grep -c eth0; exit 0`)
	// chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot
	want := uint64(1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<10 | 1<<18)
	for _, line := range []string{
		fmt.Sprintf("CapPrm:\t%016x", want), fmt.Sprintf("CapEff:\t%016x", want), fmt.Sprintf("CapBnd:\t%016x", want),
		"NoNewPrivs:\t1", "Seccomp:\t2", "/skiff/launcher /skiff/pod/main ", "77", "shm 8388608", "0\n1\n1\n0\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in:\n%s", line, out)
		}
	}
}

// TestOtherUser: a command of another user than the launcher's has that user's
// name and home, and can touch nothing of the launcher's.
func TestOtherUser(t *testing.T) {
	r := newRig(t, "", nil)
	spec := r.spec()
	spec.Image = r.image(python)
	spec.User = "nobody"
	out := r.run(spec, `id -un; echo "$HOME"; cd /skiff/pod/main || exit 1
		for f in exit.json log.0 s lock started.json config.json; do
			(echo forged > $f) 2>/dev/null && echo "$f can be written"
			[ -e $f ] && rm -f $f 2>/dev/null && echo "$f can be removed"
			mv $f moved 2>/dev/null && echo "$f can be renamed"
		done; kill -9 1 2>/dev/null && echo "the launcher can be killed"; exit 0`)
	if out != "nobody\n/nonexistent\n" {
		t.Errorf("got %q", out)
	}
	var got strings.Builder
	spec = r.spec()
	spec.Image, spec.User = r.image(python), "33:33"
	id := r.launch(spec, "sleep 600")
	code, err := r.b.Exec(t.Context(), id, runtime.ExecRequest{Argv: []string{"id", "-u"}, Stdout: &got})
	if err != nil || code != 0 || got.String() != "33\n" {
		t.Errorf("exec runs as %q (%d, %v)", got.String(), code, err)
	}
}

// TestSwappedSource replaces a checked folder by a link before the engine opens it.
func TestSwappedSource(t *testing.T) {
	r := newRig(t, "", nil)
	volume, err := r.b.EnsureVolume(t.Context(), "default", "shared")
	if err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(volume, "sub")
	for name, swap := range map[string]func() error{
		"link":           func() error { return os.Symlink("/etc", sub) },
		"link to a root": func() error { return os.Symlink("/", sub) },
		"other folder": func() error {
			// The same path, another folder: nothing that was not allowed.
			return os.Mkdir(sub, 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(sub), os.Mkdir(sub, 0o777)); err != nil {
				t.Fatal(err)
			}
			spec := r.spec()
			spec.Mounts = []runtime.Mount{{HostPath: sub, Path: "/data"}}
			id, err := r.b.Create(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(sub), swap()); err != nil {
				t.Fatal(err)
			}
			err = r.b.Start(t.Context(), id)
			if name == "other folder" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.Is(err, runtime.ErrPolicy) || !errors.Is(err, policy.ErrEscapes) {
				t.Errorf("got %v", err)
			}
			if c := r.end(id); c.State != runtime.StateLost {
				t.Errorf("it is %+v", c)
			}
			if err := r.b.Launch(t.Context(), id, sh("true")); err == nil {
				t.Error("it takes a command")
			}
		})
	}
}

func TestRemovedBehindOurBack(t *testing.T) {
	r := newRig(t, "", nil)
	spec := r.spec()
	id := r.launch(spec, "sleep 600")
	lost := make(chan runtime.Container, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	running := make(chan struct{})
	go func() {
		done <- r.b.Watch(ctx, func(c runtime.Container) {
			switch {
			case c.ID == id && c.State == runtime.StateRunning:
				close(running)
			case c.ID == id:
				lost <- c
			}
		})
	}()
	<-running
	if _, err := r.docker(t.Context(), "rm", "-f", id); err != nil {
		t.Fatal(err)
	}
	if c := <-lost; c.State != runtime.StateLost || c.Message == "" {
		t.Errorf("a removed container is %+v", c)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	if err := r.b.Start(t.Context(), id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("start: %v", err)
	}
	if err := r.b.Stop(t.Context(), id, 0); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStoppedByHand(t *testing.T) {
	r := newRig(t, "", nil)
	running := r.launch(r.spec(), `trap 'exit 0' TERM; while :; do sleep 0.05; done`)
	gated := r.start(r.spec())
	r.await(gated, runtime.StateWaiting)
	if _, err := r.docker(t.Context(), "stop", running, gated); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{running, gated} {
		c := r.end(id)
		if c.Exit == nil || c.Exit.ExitCode == 0 || c.Exit.Reason != launch.ReasonShutdown || c.Reason != launch.ReasonShutdown {
			t.Errorf("got %+v with %+v", c, c.Exit)
		}
	}
	// A restart by hand does not run the command again.
	if _, err := r.docker(t.Context(), "restart", "-t", "1", running); err != nil {
		t.Fatal(err)
	}
	if c := r.end(running); c.Exit == nil || c.Exit.Reason != launch.ReasonShutdown {
		t.Errorf("after a restart by hand: %+v", c)
	}
}

func TestStartThatTheEngineCannotDo(t *testing.T) {
	r := newRig(t, "", func(c *docker.Config) {
		data, err := os.ReadFile(c.LauncherPath)
		if err != nil {
			t.Fatal(err)
		}
		c.LauncherPath = filepath.Join(t.TempDir(), "launcher")
		if err := os.WriteFile(c.LauncherPath, data, 0o600); err != nil { // not executable
			t.Fatal(err)
		}
	})
	id, err := r.b.Create(t.Context(), r.spec())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.b.Start(t.Context(), id); err == nil {
		t.Fatal("it started")
	}
	c := r.end(id)
	if c.Exit == nil || c.Exit.ExitCode != 126 || c.Exit.Reason != launch.ReasonCannotRun || !strings.Contains(c.Message, "permission denied") {
		t.Errorf("got %+v with %+v", c, c.Exit)
	}
	if err := r.b.Start(t.Context(), id); !errors.Is(err, runtime.ErrExited) {
		t.Errorf("start again: %v", err)
	}
}

func TestNetworks(t *testing.T) {
	r := newRig(t, "", nil)
	a, b := "t-"+r.cfg.Labels[labelTest], "u-"+r.cfg.Labels[labelTest]
	server := r.spec()
	server.Network, server.Namespace = "", a
	id := r.launch(server, `while :; do echo hello | nc -l -p 8080; done`)
	up := r.await(id, runtime.StateRunning)
	if up.IP == "" {
		t.Fatalf("no address: %+v", up)
	}
	ask := func(namespace string) string {
		client := r.spec()
		client.Network, client.Namespace = "", namespace
		return r.run(client, fmt.Sprintf(`for i in 1 2 3 4 5 6 7 8 9 10; do nc -w 2 %s 8080 </dev/null && break; sleep 0.2; [ %s = u ] && break; done; exit 0`, up.IP, namespace[:1]))
	}
	if got := ask(a); got != "hello\n" {
		t.Errorf("within a namespace got %q", got)
	}
	if got := ask(b); strings.Contains(got, "hello") {
		t.Errorf("across namespaces got %q", got)
	}
	conn, err := r.b.Dial(t.Context(), id, 8080)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	none := r.launch(r.spec(), "sleep 600")
	if _, err := r.b.Dial(t.Context(), none, 8080); !errors.Is(err, runtime.ErrNotSupported) {
		t.Errorf("dial without a network: %v", err)
	}

	// Somebody removes a network between create and start.
	spec := r.spec()
	spec.Network, spec.Namespace = "", b
	late, err := r.b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.docker(t.Context(), "network", "rm", "skiff-"+b); err != nil {
		t.Fatal(err)
	}
	if err := r.b.Start(t.Context(), late); err != nil {
		t.Errorf("start after the network was removed: %v", err)
	}
}

func TestNodeEnvironment(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, docker.SelfSigned(t), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "", func(c *docker.Config) {
		c.ContainerEnv, c.ContainerCA = []string{"HTTPS_PROXY=http://proxy:3128", "X=node"}, ca
	})
	spec := r.spec()
	spec.Env, spec.User = []string{"X=pod"}, "1234"
	out := r.run(spec, `echo "$HTTPS_PROXY $X $PIP_CERT"; tail -n 1 "$SSL_CERT_FILE"; (echo x >> "$SSL_CERT_FILE") 2>/dev/null && echo writable; exit 0`)
	if out != "http://proxy:3128 pod /skiff/ca.pem\n-----END CERTIFICATE-----\n" {
		t.Errorf("got %q", out)
	}
}

func TestExecEndsWithItsCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can end another user's process")
	}
	r := newRig(t, "", nil)
	id := r.launch(r.spec(), "sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Close()
	started := &signalWriter{seen: make(chan struct{}, 1)}
	mark := fmt.Sprintf("7000.%09d", time.Now().UnixNano()%1e9)
	done := make(chan error, 1)
	go func() {
		_, err := r.b.Exec(ctx, id, runtime.ExecRequest{Argv: []string{"/bin/sh", "-c", "echo up; exec sleep " + mark}, Stdin: in, Stdout: started})
		done <- err
	}()
	<-started.seen
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); running(mark); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command runs on")
		}
	}
}

// signalWriter tells that something was written.
type signalWriter struct{ seen chan struct{} }

func (w *signalWriter) Write(p []byte) (int, error) {
	select {
	case w.seen <- struct{}{}:
	default:
	}
	return len(p), nil
}

// running says whether a process of this machine has mark in its command line.
func running(mark string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), mark) {
			return true
		}
	}
	return false
}

func TestMissingImageAtCreate(t *testing.T) {
	r := newRig(t, "", nil)
	spec := r.spec()
	spec.Image.ID = "sha256:" + strings.Repeat("0", 64)
	if _, err := r.b.Create(t.Context(), spec); !errors.Is(err, runtime.ErrImageUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestReclaim gives folders of other users, closed ones too, to a daemon that is
// not root.
func TestReclaim(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's folders")
	}
	const daemon = 12345
	r := newRig(t, "", nil)
	pod := r.podDir(t)
	deep := filepath.Join(pod, "out", "a b", "c")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	file := filepath.Join(deep, "file")
	if err := errors.Join(
		os.WriteFile(file, []byte("kept"), 0o600), os.Symlink(outside, filepath.Join(deep, "link")), os.Chown(filepath.Join(pod, "out", "a b"), 777, 777),
	); err != nil {
		t.Fatal(err)
	}
	if err := r.b.Reclaim(t.Context(), pod, daemon, daemon); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{pod, filepath.Join(pod, "out"), filepath.Join(pod, "out", "a b"), deep} {
		if uid := owner(t, dir); uid != daemon {
			t.Errorf("%s belongs to %d", dir, uid)
		}
	}
	if owner(t, outside) == daemon {
		t.Error("a link was followed")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "kept" || owner(t, file) != 0 {
		t.Errorf("the file became %q of %d, %v", data, owner(t, file), err)
	}
	if err := r.b.Reclaim(t.Context(), outside, daemon, daemon); !errors.Is(err, runtime.ErrPolicy) {
		t.Errorf("a folder outside the state: %v", err)
	}
}

func owner(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
