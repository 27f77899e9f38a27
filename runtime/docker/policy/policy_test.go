package policy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// world is a machine with a state folder, an allowed folder and an engine.
type world struct {
	rules                     Rules
	state, pod, shared, other string
	grant                     Grant
}

func newWorld(t *testing.T) world {
	t.Helper()
	root := t.TempDir()
	w := world{
		state: filepath.Join(root, "home", "state"), shared: filepath.Join(root, "data", "shared"),
		other: filepath.Join(root, "data", "other"),
	}
	w.pod = filepath.Join(w.state, "pods", "uid")
	for _, dir := range []string{
		filepath.Join(w.pod, "main"), filepath.Join(w.shared, "in"), filepath.Join(w.shared, "readonly"), w.other,
		filepath.Join(w.state, "artifacts", "run"), filepath.Join(root, "run"), filepath.Join(w.state, "pods", "another"),
	} {
		mkdir(t, dir)
	}
	socket := filepath.Join(root, "run", "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	write(t, filepath.Join(w.state, "launcher"))
	w.rules = Rules{
		Roots: []Root{
			{Path: w.shared}, {Path: filepath.Join(w.shared, "readonly"), ReadOnly: true},
			{Path: filepath.Join(w.state, "artifacts"), Own: true}, {Path: filepath.Join(root, "run")},
		},
		Files:     []string{filepath.Join(w.state, "launcher")},
		Forbidden: []string{w.state}, Sockets: []string{socket},
		Entrypoint: "/skiff/launcher",
	}
	w.grant = Grant{Roots: []Root{{Path: w.pod, Own: true}}, Network: "skiff-default"}
	return w
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func fifo(t *testing.T, path string) string {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, to, at string) string {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
	return at
}

// good is a container that passes.
func (w world) good() (*dockerapi.HostConfig, *dockerapi.Config) {
	no, pids := false, int64(4096)
	h := &dockerapi.HostConfig{
		LogConfig:     dockerapi.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m"}},
		RestartPolicy: dockerapi.RestartPolicy{Name: "no"}, NetworkMode: "skiff-default",
		CapDrop: []string{"ALL"}, CapAdd: Capabilities(), SecurityOpt: []string{NoNewPrivileges},
		IpcMode: "private", OomScoreAdj: 100, Init: &no, ShmSize: 64 << 20,
	}
	h.PidsLimit = &pids
	h.Memory, h.MemorySwap, h.NanoCPUs = 1<<30, 1<<30, 1e9
	h.Ulimits = []*dockerapi.Ulimit{{Name: "nofile", Soft: 1, Hard: 1}}
	h.Mounts = []dockerapi.Mount{
		bind(filepath.Join(w.state, "launcher"), "/skiff/launcher", true),
		bind(filepath.Join(w.pod, "main"), "/skiff/pod/main", false),
		{Type: dockerapi.MountTmpfs, Target: "/scratch", TmpfsOptions: &dockerapi.TmpfsOptions{SizeBytes: 1}},
	}
	c := &dockerapi.Config{
		User: "0:0", Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}, Entrypoint: []string{"/skiff/launcher"},
		Cmd: []string{"/skiff/pod/main"}, Image: "sha256:0", StopSignal: "SIGTERM",
		Healthcheck: &dockerapi.HealthConfig{Test: []string{"NONE"}}, Labels: map[string]string{"a": "b"},
	}
	return h, c
}

func bind(source, target string, readOnly bool) dockerapi.Mount {
	return dockerapi.Mount{Type: dockerapi.MountBind, Source: source, Target: target, ReadOnly: readOnly,
		BindOptions: &dockerapi.BindOptions{Propagation: dockerapi.PropagationPrivate}}
}

func TestGoodPasses(t *testing.T) {
	w := newWorld(t)
	h, c := w.good()
	h.Mounts = append(h.Mounts,
		bind(filepath.Join(w.shared, "in"), "/in", false),
		bind(filepath.Join(w.shared, "readonly"), "/ro", true),
		bind(filepath.Join(w.state, "artifacts"), "/minio", true),
		bind(filepath.Join(w.state, "artifacts", "run"), "/minio/run", false))
	if err := w.rules.Check(h, c, w.grant); err != nil {
		t.Fatal(err)
	}
}

// TestEveryFieldIsClosed sets each field of both structs in turn: what is not
// on the list is refused, whatever a newer engine adds.
func TestEveryFieldIsClosed(t *testing.T) {
	w := newWorld(t)
	for _, s := range []struct {
		name    string
		kind    reflect.Type
		allowed map[string]check
		pick    func(*dockerapi.HostConfig, *dockerapi.Config) reflect.Value
	}{
		{"HostConfig", reflect.TypeFor[dockerapi.HostConfig](), hostFields,
			func(h *dockerapi.HostConfig, _ *dockerapi.Config) reflect.Value { return reflect.ValueOf(h).Elem() }},
		{"Config", reflect.TypeFor[dockerapi.Config](), configFields,
			func(_ *dockerapi.HostConfig, c *dockerapi.Config) reflect.Value { return reflect.ValueOf(c).Elem() }},
	} {
		closed := 0
		for _, f := range reflect.VisibleFields(s.kind) {
			if f.Anonymous {
				continue
			}
			if _, listed := s.allowed[f.Name]; listed {
				continue
			}
			h, c := w.good()
			fill(s.pick(h, c).FieldByIndex(f.Index))
			err := w.rules.Check(h, c, w.grant)
			if !errors.Is(err, runtime.ErrPolicy) || !strings.Contains(err.Error(), s.name+"."+f.Name) {
				t.Errorf("%s.%s is let through: %v", s.name, f.Name, err)
			}
			closed++
		}
		for name := range s.allowed {
			if _, there := s.kind.FieldByName(name); !there {
				t.Errorf("%s has no field %s", s.name, name)
			}
		}
		if closed < 10 {
			t.Errorf("only %d fields of %s were tried", closed, s.name)
		}
	}
}

// fill makes a value that is not zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint16, reflect.Uint64:
		v.SetUint(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Array:
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		panic("no value for " + v.Type().String())
	}
}

func TestRefused(t *testing.T) {
	type change func(t *testing.T, w *world, h *dockerapi.HostConfig, c *dockerapi.Config)
	mount := func(path func(t *testing.T, w *world) string) change {
		return func(t *testing.T, w *world, h *dockerapi.HostConfig, _ *dockerapi.Config) {
			h.Mounts = append(h.Mounts, bind(path(t, w), "/data", true))
		}
	}
	at := func(path string) change {
		return mount(func(*testing.T, *world) string { return path })
	}
	host := func(set func(h *dockerapi.HostConfig)) change {
		return func(_ *testing.T, _ *world, h *dockerapi.HostConfig, _ *dockerapi.Config) { set(h) }
	}
	conf := func(set func(c *dockerapi.Config)) change {
		return func(_ *testing.T, _ *world, _ *dockerapi.HostConfig, c *dockerapi.Config) { set(c) }
	}
	for _, tt := range []struct {
		name   string
		change change
		want   string
	}{
		{"root of the host", at("/"), "HostPathNotAllowed"},
		{"etc", at("/etc"), "HostPathNotAllowed"},
		{"dots out of an allowed folder", mount(func(_ *testing.T, w *world) string { return w.shared + "/../other" }), "PathEscapes"},
		{"link out of an allowed folder", mount(func(t *testing.T, w *world) string {
			return link(t, "/etc", filepath.Join(w.shared, "link"))
		}), "PathEscapes"},
		{"below a link out of an allowed folder", mount(func(t *testing.T, w *world) string {
			return filepath.Join(link(t, w.other, filepath.Join(w.shared, "link")), ".")
		}), "PathEscapes"},
		{"beside an allowed folder", mount(func(t *testing.T, w *world) string {
			mkdir(t, w.shared+"-not")
			return w.shared + "-not"
		}), "HostPathNotAllowed"},
		{"not there", mount(func(_ *testing.T, w *world) string { return w.shared + "/none" }), "HostPathNotAllowed"},
		{"relative", at("data"), "PathEscapes|HostPathNotAllowed"},
		{"engine's socket", mount(func(_ *testing.T, w *world) string { return w.rules.Sockets[0] }), "HostPathNotAllowed"},
		{"folder of the engine's socket, even allow-listed", mount(func(_ *testing.T, w *world) string {
			return filepath.Dir(w.rules.Sockets[0])
		}), "would show the engine's socket"},
		{"socket under another name", mount(func(t *testing.T, w *world) string {
			if err := os.Link(w.rules.Sockets[0], w.shared+"/harmless"); err != nil {
				t.Fatal(err)
			}
			return w.shared + "/harmless"
		}), "HostPathNotAllowed"},
		{"state folder", mount(func(_ *testing.T, w *world) string { return w.state }), "HostPathNotAllowed"},
		{"above the state folder", mount(func(_ *testing.T, w *world) string { return filepath.Dir(w.state) }), "would show"},
		{"above the state folder, allow-listed", func(t *testing.T, w *world, h *dockerapi.HostConfig, c *dockerapi.Config) {
			w.rules.Roots = append(w.rules.Roots, Root{Path: filepath.Dir(w.state)})
			h.Mounts = append(h.Mounts, bind(filepath.Dir(w.state), "/data", true))
		}, "would show"},
		{"in the state folder, allow-listed by its parent", func(t *testing.T, w *world, h *dockerapi.HostConfig, c *dockerapi.Config) {
			w.rules.Roots = append(w.rules.Roots, Root{Path: filepath.Dir(w.state)})
			h.Mounts = append(h.Mounts, bind(filepath.Join(w.state, "pods"), "/data", true))
		}, "lies in"},
		{"another pod's folder", mount(func(_ *testing.T, w *world) string { return filepath.Join(w.state, "pods", "another") }), "lies in"},
		{"writable in a read-only folder", func(_ *testing.T, w *world, h *dockerapi.HostConfig, _ *dockerapi.Config) {
			h.Mounts = append(h.Mounts, bind(filepath.Join(w.shared, "readonly"), "/data", false))
		}, "read-only"},
		{"writable launcher", func(_ *testing.T, w *world, h *dockerapi.HostConfig, _ *dockerapi.Config) {
			h.Mounts[0].ReadOnly = false
		}, "read-only"},
		{"device", at("/dev/null"), "HostPathNotAllowed"},
		{"proc", at("/proc/1"), "HostPathNotAllowed|PathEscapes"},
		{"sys", at("/sys/kernel"), "HostPathNotAllowed"},
		{"FIFO", mount(func(t *testing.T, w *world) string { return fifo(t, w.shared+"/fifo") }), "neither a folder nor a regular file"},
		{"target over proc", host(func(h *dockerapi.HostConfig) { h.Mounts[2].Target = "/proc/x" }), "kernel's"},
		{"target with dots", host(func(h *dockerapi.HostConfig) { h.Mounts[2].Target = "/a/../proc" }), "clean"},
		{"target twice", host(func(h *dockerapi.HostConfig) { h.Mounts[2].Target = "/skiff/pod/main" }), "twice"},
		{"shared propagation", host(func(h *dockerapi.HostConfig) { h.Mounts[1].BindOptions.Propagation = "shared" }), "propagation"},
		{"no propagation", host(func(h *dockerapi.HostConfig) { h.Mounts[1].BindOptions = nil }), "propagation"},
		{"volume driver", host(func(h *dockerapi.HostConfig) {
			h.Mounts[1] = dockerapi.Mount{Type: dockerapi.MountVolume, Source: "x", Target: "/x"}
		}), "Type"},
		{"tmpfs options", host(func(h *dockerapi.HostConfig) { h.Mounts[2].TmpfsOptions.Options = [][]string{{"suid"}} }), "size and mode"},
		{"tmpfs without an end", host(func(h *dockerapi.HostConfig) { h.Mounts[2].TmpfsOptions.SizeBytes = 0 }), "needs a size"},
		{"binds", host(func(h *dockerapi.HostConfig) { h.Binds = []string{"/:/host"} }), "HostConfig.Binds"},
		{"privileged", host(func(h *dockerapi.HostConfig) { h.Privileged = true }), "HostConfig.Privileged"},
		{"host pid", host(func(h *dockerapi.HostConfig) { h.PidMode = "host" }), "HostConfig.PidMode"},
		{"host ipc", host(func(h *dockerapi.HostConfig) { h.IpcMode = "host" }), "HostConfig.IpcMode"},
		{"host network", host(func(h *dockerapi.HostConfig) { h.NetworkMode = "host" }), "HostConfig.NetworkMode"},
		{"another namespace's network", host(func(h *dockerapi.HostConfig) { h.NetworkMode = "skiff-other" }), "HostConfig.NetworkMode"},
		{"another container's network", host(func(h *dockerapi.HostConfig) { h.NetworkMode = "container:x" }), "HostConfig.NetworkMode"},
		{"no network named", host(func(h *dockerapi.HostConfig) { h.NetworkMode = "" }), "HostConfig.NetworkMode"},
		{"host users", host(func(h *dockerapi.HostConfig) { h.UsernsMode = "host" }), "HostConfig.UsernsMode"},
		{"host names", host(func(h *dockerapi.HostConfig) { h.UTSMode = "host" }), "HostConfig.UTSMode"},
		{"host cgroups", host(func(h *dockerapi.HostConfig) { h.CgroupnsMode = "host" }), "HostConfig.CgroupnsMode"},
		{"cap SYS_ADMIN", host(func(h *dockerapi.HostConfig) { h.CapAdd = []string{"SYS_ADMIN"} }), "SYS_ADMIN"},
		{"cap sys_admin", host(func(h *dockerapi.HostConfig) { h.CapAdd = []string{"sys_admin"} }), "sys_admin"},
		{"cap ALL", host(func(h *dockerapi.HostConfig) { h.CapAdd = []string{"ALL"} }), "ALL"},
		{"caps kept", host(func(h *dockerapi.HostConfig) { h.CapDrop = nil }), "CapDrop"},
		{"caps of the default set", host(func(h *dockerapi.HostConfig) { h.CapAdd = []string{"CAP_NET_RAW"} }), "CAP_NET_RAW"},
		{"seccomp unconfined", host(func(h *dockerapi.HostConfig) {
			h.SecurityOpt = append(h.SecurityOpt, "seccomp=unconfined")
		}), "SecurityOpt"},
		{"apparmor unconfined", host(func(h *dockerapi.HostConfig) { h.SecurityOpt = []string{"apparmor=unconfined"} }), "SecurityOpt"},
		{"no security option", host(func(h *dockerapi.HostConfig) { h.SecurityOpt = nil }), "SecurityOpt"},
		{"unmasked paths", host(func(h *dockerapi.HostConfig) { h.MaskedPaths = []string{"/x"} }), "MaskedPaths"},
		{"device mapping", host(func(h *dockerapi.HostConfig) {
			h.Devices = []dockerapi.DeviceMapping{{PathOnHost: "/dev/nvidia0"}}
		}), "Devices"},
		{"device rule", host(func(h *dockerapi.HostConfig) { h.DeviceCgroupRules = []string{"a *:* rwm"} }), "DeviceCgroupRules"},
		{"device request without a grant", host(func(h *dockerapi.HostConfig) {
			h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "nvidia", DeviceIDs: []string{"GPU-1"}}}
		}), "not granted"},
		{"all devices", host(func(h *dockerapi.HostConfig) {
			h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "nvidia", Count: -1}}
		}), "one by one"},
		{"CDI device of another kind", host(func(h *dockerapi.HostConfig) {
			h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"evil.com/x=GPU-1"}}}
		}), "not granted"},
		{"runtime", host(func(h *dockerapi.HostConfig) { h.Runtime = "evil" }), "runtime"},
		{"sysctls", host(func(h *dockerapi.HostConfig) { h.Sysctls = map[string]string{"kernel.x": "1"} }), "Sysctls"},
		{"published port", host(func(h *dockerapi.HostConfig) { h.PublishAllPorts = true }), "PublishAllPorts"},
		{"log driver", host(func(h *dockerapi.HostConfig) { h.LogConfig.Type = "syslog" }), "log driver"},
		{"log option", host(func(h *dockerapi.HostConfig) { h.LogConfig.Config["syslog-address"] = "x" }), "log option"},
		{"restart", host(func(h *dockerapi.HostConfig) { h.RestartPolicy.Name = "always" }), "RestartPolicy"},
		{"removed by itself", host(func(h *dockerapi.HostConfig) { h.AutoRemove = true }), "AutoRemove"},
		{"no pids limit", host(func(h *dockerapi.HostConfig) { h.PidsLimit = nil }), "PidsLimit"},
		{"unlimited pids", host(func(h *dockerapi.HostConfig) { *h.PidsLimit = -1 }), "no limit"},
		{"swap", host(func(h *dockerapi.HostConfig) { h.MemorySwap = -1 }), "MemorySwap"},
		{"OOM score", host(func(h *dockerapi.HostConfig) { h.OomScoreAdj = -900 }), "OomScoreAdj"},
		{"ulimit", host(func(h *dockerapi.HostConfig) { h.Ulimits[0].Name = "rtprio" }), "rtprio"},
		{"docker-init", host(func(h *dockerapi.HostConfig) { *h.Init = true }), "Init"},
		{"cgroup parent", host(func(h *dockerapi.HostConfig) { h.CgroupParent = "/" }), "CgroupParent"},
		{"another entrypoint", conf(func(c *dockerapi.Config) { c.Entrypoint = []string{"/bin/sh"} }), "Entrypoint"},
		{"no entrypoint", conf(func(c *dockerapi.Config) { c.Entrypoint = nil }), "Entrypoint"},
		{"the image's health check", conf(func(c *dockerapi.Config) { c.Healthcheck = nil }), "Healthcheck"},
		{"a health check", conf(func(c *dockerapi.Config) { c.Healthcheck.Test = []string{"CMD", "x"} }), "Healthcheck"},
		{"stop signal", conf(func(c *dockerapi.Config) { c.StopSignal = "SIGKILL" }), "StopSignal"},
		{"all devices by the environment", conf(func(c *dockerapi.Config) { c.Env = []string{"NVIDIA_VISIBLE_DEVICES=all"} }), "NVIDIA_VISIBLE_DEVICES"},
		{"devices twice in the environment", conf(func(c *dockerapi.Config) {
			c.Env = append(c.Env, "NVIDIA_VISIBLE_DEVICES=void")
		}), "2 times"},
		{"devices left to the image", conf(func(c *dockerapi.Config) { c.Env = nil }), "0 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			h, c := w.good()
			tt.change(t, &w, h, c)
			err := w.rules.Check(h, c, w.grant)
			if !errors.Is(err, runtime.ErrPolicy) {
				t.Fatalf("let through: %v", err)
			}
			for want := range strings.SplitSeq(tt.want, "|") {
				if strings.Contains(err.Error(), want) {
					return
				}
			}
			t.Errorf("%q does not say %q", err, tt.want)
		})
	}
}

func TestGrantedDevices(t *testing.T) {
	w := newWorld(t)
	w.grant.GPUs, w.grant.Runtime = []string{"GPU-1", "GPU-2"}, "nvidia"
	for _, set := range []func(*dockerapi.HostConfig, *dockerapi.Config){
		func(h *dockerapi.HostConfig, _ *dockerapi.Config) {
			h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"}}}
		},
		func(h *dockerapi.HostConfig, c *dockerapi.Config) {
			h.DeviceRequests = []dockerapi.DeviceRequest{{Driver: "nvidia", DeviceIDs: []string{"GPU-2"}, Capabilities: [][]string{{"gpu"}}}}
			c.Env = []string{"NVIDIA_VISIBLE_DEVICES=GPU-2"}
		},
		func(h *dockerapi.HostConfig, c *dockerapi.Config) {
			h.Runtime = "nvidia"
			c.Env = []string{"NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-2"}
		},
	} {
		h, c := w.good()
		set(h, c)
		if err := w.rules.Check(h, c, w.grant); err != nil {
			t.Error(err)
		}
	}
	h, c := w.good()
	c.Env = []string{"NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-3"}
	if err := w.rules.Check(h, c, w.grant); !errors.Is(err, runtime.ErrPolicy) {
		t.Errorf("a device beyond the grant: %v", err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	inside := link(t, filepath.Join(w.shared, "in"), filepath.Join(w.shared, "inner"))
	got, err := w.rules.Resolve(inside, w.grant)
	if err != nil || got != filepath.Join(w.shared, "in") {
		t.Errorf("a link that stays inside: %q, %v", got, err)
	}
	if _, err := w.rules.Resolve(link(t, w.other, filepath.Join(w.shared, "out")), w.grant); !errors.Is(err, ErrEscapes) || !errors.Is(err, runtime.ErrPolicy) {
		t.Errorf("a link that leads out: %v", err)
	}
	if _, err := w.rules.Resolve("data/x", w.grant); !errors.Is(err, ErrHostPath) {
		t.Errorf("a relative path: %v", err)
	}
	// A root that is itself a link is fine: the administrator said so.
	w.rules.Roots = append(w.rules.Roots, Root{Path: link(t, w.other, filepath.Join(filepath.Dir(w.other), "alias"))})
	got, err = w.rules.Resolve(filepath.Join(filepath.Dir(w.other), "alias"), w.grant)
	if err != nil || got != w.other {
		t.Errorf("a root that is a link: %q, %v", got, err)
	}
}
