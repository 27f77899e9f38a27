package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

func TestConfigIsChecked(t *testing.T) {
	launcher := filepath.Join(t.TempDir(), "launcher")
	if err := os.WriteFile(launcher, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Config{StateDir: t.TempDir(), StoreID: "s", LauncherPath: launcher}
	for name, change := range map[string]func(*Config){
		"engine of another machine": func(c *Config) { c.Host = "tcp://10.0.0.1:2375" },
		"no state":                  func(c *Config) { c.StateDir = "" },
		"no store":                  func(c *Config) { c.StoreID = "" },
		"no launcher":               func(c *Config) { c.LauncherPath = "" },
		"launcher not there":        func(c *Config) { c.LauncherPath += "x" },
		"whole host":                func(c *Config) { c.AllowedHostPaths = []HostPath{{Path: "/"}} },
		"relative host path":        func(c *Config) { c.AllowedHostPaths = []HostPath{{Path: "data"}} },
		"environment":               func(c *Config) { c.ContainerEnv = []string{"NOVALUE"} },
		"CA not there":              func(c *Config) { c.ContainerCA = "/no/such/file" },
	} {
		cfg := good
		change(&cfg)
		if b, err := New(cfg); err == nil {
			t.Errorf("%s: made", name)
			_ = b.Close()
		}
	}
	t.Setenv("DOCKER_HOST", "unix:///somewhere/else.sock")
	b, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if b.cfg.Host != "unix:///somewhere/else.sock" {
		t.Errorf("the engine is %s", b.cfg.Host)
	}
}

func TestBuild(t *testing.T) {
	b := newTestBackend(t)
	b.cfg.ContainerEnv = []string{"PROXY=node", "BOTH=node"}
	b.cfg.Labels = map[string]string{"skiff.test": "x"}
	b.bundle = b.cfg.LauncherPath
	spec := testSpec(t)
	spec.Env = []string{"BOTH=spec", "A=1", "A=2"}
	spec.Resources = runtime.Resources{CPUMilli: 64_000, MemoryBytes: 1 << 40}
	spec.User, spec.Hostname, spec.StopGrace = "1000:100", "h", 1500*time.Millisecond
	spec.Labels[core.LabelStore] = "somebody else's"
	data := filepath.Join(spec.PodDir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = []runtime.Mount{
		{HostPath: data, Path: "/minio/x/"}, {Path: "/dev/shm", Memory: true, Size: 5 << 20}, {Path: "/fast", Memory: true},
	}
	rules := b.cfg.rules([]string{b.bundle}, "")
	c, err := b.build(spec, machine{cpus: 4, memory: 16 << 30, limits: engineLimits{mayRaise: true}}, "skiff-default", rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Check(c.host, c.config, c.grant); err != nil {
		t.Fatal(err)
	}
	h := c.host
	if h.NanoCPUs != 4e9 || h.Memory != 16<<30 || h.MemorySwap != h.Memory || *h.PidsLimit != DefaultPids {
		t.Errorf("limits of a declared larger machine: %+v", h.Resources)
	}
	if h.ShmSize != 5<<20 {
		t.Errorf("shm is %d", h.ShmSize)
	}
	for _, e := range []string{"PROXY=node", "BOTH=spec", "A=2", "SSL_CERT_FILE=/skiff/ca.pem", "PIP_CERT=/skiff/ca.pem", "NVIDIA_VISIBLE_DEVICES=void"} {
		if !slices.Contains(c.config.Env, e) {
			t.Errorf("%s is not in %q", e, c.config.Env)
		}
	}
	if slices.Contains(c.config.Env, "A=1") || slices.Contains(c.config.Env, "BOTH=node") {
		t.Errorf("an earlier value survives: %q", c.config.Env)
	}
	l := c.config.Labels
	if l[core.LabelStore] != "store" || l["skiff.test"] != "x" || l[labelUser] != "1000:100" || l[labelSpec] == "" {
		t.Errorf("labels are %v", l)
	}
	if c.config.User != "0:0" || c.config.Hostname != "h" || *c.config.StopTimeout != 2 {
		t.Errorf("config is %+v", c.config)
	}
	var targets []string
	for _, m := range h.Mounts {
		targets = append(targets, m.Target)
	}
	if want := []string{"/skiff/launcher", "/skiff/pod/main", "/skiff/ca.pem", "/minio/x", "/fast"}; !slices.Equal(targets, want) {
		t.Errorf("mounts are %q, want %q", targets, want)
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, m := range map[string]runtime.Mount{
		"over the launcher":  {Path: "/skiff/launcher", Memory: true},
		"over skiff's own":   {Path: "/skiff/", Memory: true},
		"with dots":          {Path: "/a/../skiff/pod", Memory: true},
		"the host's etc":     {HostPath: "/etc", Path: "/x", ReadOnly: true},
		"dots":               {HostPath: "/tmp/../etc", Path: "/x"},
		"proc as the target": {Path: "/proc/self", Memory: true},
	} {
		b, spec := newTestBackend(t), testSpec(t)
		spec.Mounts = []runtime.Mount{m}
		rules := b.cfg.rules(nil, "")
		c, err := b.build(spec, machine{}, "skiff-default", rules)
		if err == nil {
			err = rules.Check(c.host, c.config, c.grant)
		}
		if !errors.Is(err, runtime.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another namespace's volumes are not this one's.
	b, spec := newTestBackend(t), testSpec(t)
	spec.Namespace = "team"
	own, err := b.EnsureVolume(t.Context(), "team", "data")
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.EnsureVolume(t.Context(), "other", "data")
	if err != nil {
		t.Fatal(err)
	}
	for path, fine := range map[string]bool{own: true, other: false} {
		spec.Mounts = []runtime.Mount{{HostPath: path, Path: "/data"}}
		rules := b.cfg.rules(nil, "")
		c, err := b.build(spec, machine{}, "skiff-team", rules)
		if err == nil {
			err = rules.Check(c.host, c.config, c.grant)
		}
		if fine != (err == nil) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestSpecHash(t *testing.T) {
	a, b := testSpec(t), testSpec(t)
	b.PodDir = a.PodDir
	if specHash(a) != specHash(b) {
		t.Error("equal specifications differ")
	}
	b.Env = []string{"A=1"}
	if specHash(a) == specHash(b) {
		t.Error("different specifications are equal")
	}
}

func TestSizes(t *testing.T) {
	for _, tt := range []struct{ asked, limit, machine, want int64 }{
		{0, 0, 64 << 30, 8 << 30}, {0, 1 << 30, 64 << 30, 512 << 20}, {0, 64 << 20, 0, 64 << 20}, {1 << 20, 1 << 30, 0, 1 << 20}, {0, 0, 0, 64 << 20},
	} {
		if got := shmSize(tt.asked, tt.limit, tt.machine); got != tt.want {
			t.Errorf("shmSize(%d, %d, %d) = %d, want %d", tt.asked, tt.limit, tt.machine, got, tt.want)
		}
	}
	for _, tt := range []struct {
		milli int64
		cpus  int
		want  int64
	}{{0, 4, 0}, {1, 4, 10_000_000}, {500, 4, 500_000_000}, {8000, 4, 4_000_000_000}} {
		if got := clampCPU(tt.milli, tt.cpus); got != tt.want {
			t.Errorf("clampCPU(%d, %d) = %d, want %d", tt.milli, tt.cpus, got, tt.want)
		}
	}
}

func TestEngineLimits(t *testing.T) {
	write := func(caps, files string) string {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"status": "Name:\tdockerd\nCapEff:\t" + caps + "\n",
			"limits": "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            " + files + " files     \n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, tt := range []struct {
		name string
		dir  string
		want map[string]int64
	}{
		{"root", write("000001ffffffffff", "1024 524288"), map[string]int64{"nofile": noFile, "memlock": -1, "stack": gpuStack}},
		{"nested", write("000001fffeffffff", "20000 20000"), map[string]int64{"nofile": 20000}},
		{"nested, without a limit", write("000001fffeffffff", "unlimited unlimited"), map[string]int64{}},
		{"unknown", t.TempDir(), map[string]int64{"nofile": noFile, "memlock": -1, "stack": gpuStack}},
	} {
		got := map[string]int64{}
		for _, u := range readProcessLimits(tt.dir).ulimits(true) {
			got[u.Name] = u.Hard
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		for name, want := range tt.want {
			if got[name] != want {
				t.Errorf("%s: %s is %d, want %d", tt.name, name, got[name], want)
			}
		}
	}
}

func TestMountPoints(t *testing.T) {
	outer, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := makeMountPoints([]runtime.Mount{
		{HostPath: t.TempDir(), Path: "/minio/a/b"}, {HostPath: outer, Path: "/minio", ReadOnly: true}, {HostPath: file, Path: "/minio/c/file"},
		{Path: "/minio/tmp", Memory: true}, {HostPath: t.TempDir(), Path: "/minions"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, dir := range map[string]bool{"a/b": true, "c/file": false, "tmp": true} {
		if info, err := os.Stat(filepath.Join(outer, path)); err != nil || info.IsDir() != dir {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	// A link in the outer folder does not lead the daemon elsewhere.
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(outer, "out")); err != nil {
		t.Fatal(err)
	}
	if err := makeMountPoints([]runtime.Mount{{HostPath: outer, Path: "/m"}, {HostPath: t.TempDir(), Path: "/m/out/made"}}); err == nil {
		t.Error("a link out was followed")
	}
	if entries, _ := os.ReadDir(elsewhere); len(entries) != 0 {
		t.Error("a folder was made elsewhere")
	}
}

func TestTrustBundle(t *testing.T) {
	state := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "text": "hello", "key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"broken": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := writeBundle(state, file); err == nil {
			t.Errorf("%s makes a bundle", name)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, selfSigned(t), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := writeBundle(state, file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := writeBundle(state, file)
	if err != nil || again != path {
		t.Errorf("the same file makes %s and %s (%v)", path, again, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(data), string(selfSignedOf(t, file))) {
		t.Errorf("the bundle lacks the certificate: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("not every user inside can read it: %v, %v", info.Mode(), err)
	}
}

func TestVerifyMounts(t *testing.T) {
	own := []mountPoint{
		{"8:1", "/", "/"}, {"8:2", "/", "/data"}, {"8:2", "/sub", "/bound"}, {"0:5", "/", "/data/tmp"},
	}
	for path, want := range map[string]mountPoint{
		"/etc":          {"8:1", "/etc", "/"},
		"/data":         {"8:2", "/", "/data"},
		"/data/x/y":     {"8:2", "/x/y", "/data"},
		"/database":     {"8:1", "/database", "/"},
		"/bound/z":      {"8:2", "/sub/z", "/bound"},
		"/data/tmp/dir": {"0:5", "/dir", "/data/tmp"},
	} {
		if got, ok := locate(path, own); !ok || got != want {
			t.Errorf("%s is %+v, want %+v", path, got, want)
		}
	}
	inside := []mountPoint{{"0:9", "/", "/"}, {"8:2", "/x", "/in"}, {"8:2", "/x", "/again"}}
	for _, tt := range []struct {
		sources []string
		missing string
	}{
		{[]string{"/data/x"}, ""}, {[]string{"/data/x", "/data/x"}, ""},
		{[]string{"/data/x", "/data/y"}, "/data/y"},
		{[]string{"/data/x", "/data/x", "/data/x"}, "/data/x"},
	} {
		if got := firstMissing(tt.sources, own, inside); got != tt.missing {
			t.Errorf("%q: missing %q, want %q", tt.sources, got, tt.missing)
		}
	}
	if got := unescape(`/a\040b\134c\0`); got != `/a b\c\0` {
		t.Errorf("unescape gives %q", got)
	}
}
