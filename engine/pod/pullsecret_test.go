//go:build docker

package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// A registry's one user. The hash is bcrypt's, of the least cost.
const (
	registryUser     = "skiff"
	registryPassword = "let-me-in"
	registryHash     = "$2a$04$y/AIhGQPynYxppaPxjEjCumWnj/czc7Go.x10qEsC1JWJOdCzW5cS"
)

// startRegistry runs a real registry that wants a password, and pushes the
// image of the tests into it.
func startRegistry(t *testing.T) (host, image string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed (Debian's package of that name)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %[1]s/data}}\nhttp: {addr: %[2]s}\nauth: {htpasswd: {realm: test, path: %[1]s/htpasswd}}\n", dir, host)
	for name, text := range map[string]string{
		"config.yml": config, "htpasswd": registryUser + ":" + registryHash + "\n", "config.json": dockerConfig(host, registryPassword),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // It was killed.
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := client.Get("http://" + host + "/v2/"); err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not answer")
		}
	}
	image = host + "/team/busybox:1"
	for _, args := range [][]string{
		{"tag", "skiffdev/busybox:1", image}, {"--config", dir, "push", "-q", image}, {"rmi", image},
	} {
		if out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	return host, image
}

func dockerConfig(host, password string) string {
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": registryUser, "password": password}}})
	if err != nil {
		panic(err)
	}
	return string(config)
}

// newDockerRig is a rig over the Docker engine, without the machine's own
// registry credentials.
func newDockerRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "skiff.db"), Kinds: Kinds()})
	if err != nil {
		t.Fatal(err)
	}
	backend, err := docker.New(docker.Config{
		StateDir: dir, StoreID: s.ID(), LauncherPath: launchtest.Build(t), DockerConfig: filepath.Join(dir, "none.json"),
	})
	if err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	t.Cleanup(func() { _ = backend.Close() })
	r := &rig{t: t, dir: dir, store: s, world: newWorld(filepath.Join(dir, "world"))}
	r.cfg = Config{
		Store: s, StateDir: dir, Backend: backend, Node: scheduler.Node{CPUMilli: 2000, MemoryBytes: 8 << 30},
		ImageTries: 1, ImageBackoff: 10 * time.Millisecond,
	}
	r.up()
	t.Cleanup(r.close)
	return r
}

func pullingPod(name, image string, secrets ...string) *core.Pod {
	p := podNamed(name, "true")
	p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = image, "Always"
	for _, s := range secrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, core.LocalReference{Name: s})
	}
	return p
}

// TestPullSecrets: an image of a registry that wants a password comes with the
// secret that is for it, and with no other.
func TestPullSecrets(t *testing.T) {
	host, image := startRegistry(t)
	r := newDockerRig(t)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", image).Run() }) // Where it was pulled.
	r.secret("right", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: dockerConfig(host, registryPassword)})
	r.secret("old", core.SecretDockerConfig, map[string]string{core.DockerConfigKey: fmt.Sprintf(`{%q: {"username": %q, "password": %q}}`, "http://"+host+"/v1/", registryUser, registryPassword)})
	r.secret("wrong", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: dockerConfig(host, "wrong-password")})
	r.secret("other-host", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: dockerConfig("other.example", registryPassword)})
	r.secret("opaque", core.SecretOpaque, map[string]string{"password": registryPassword})
	for _, tc := range []struct {
		name    string
		secrets []string
		want    string // empty: it succeeds
	}{
		{"none", nil, "nauthorized"},
		{"missing", []string{"missing"}, "secret missing is not there"},
		{"opaque", []string{"opaque"}, "holds no registry credentials"},
		{"wrong", []string{"wrong"}, "nauthorized"},
		{"other-host", []string{"other-host"}, "nauthorized"},
		{"right", []string{"missing", "other-host", "right", "wrong"}, ""},
		{"old", []string{"old"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.create(pullingPod(tc.name, image, tc.secrets...))
			got := r.ended(tc.name)
			switch {
			case tc.want == "" && got.Status.Phase != core.PodSucceeded:
				t.Errorf("status = %+v", got.Status)
			case tc.want != "" && (got.Status.Reason != ReasonErrImagePull || !strings.Contains(got.Status.Message, tc.want)):
				t.Errorf("status = %+v, want %q", got.Status, tc.want)
			}
			if strings.Contains(got.Status.Message, registryPassword) || strings.Contains(got.Status.Message, "wrong-password") {
				t.Errorf("the message tells a password: %s", got.Status.Message)
			}
		})
	}
}

// TestPullSecretsStayAtTheirRegistry: a registry that asks for a password is
// sent none that is for another.
func TestPullSecretsStayAtTheirRegistry(t *testing.T) {
	r := newDockerRig(t)
	var mu sync.Mutex
	asked, sent := 0, []string{}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if header := req.Header.Get("Authorization"); header != "" {
			sent = append(sent, header)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="other"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
	r.secret("elsewhere", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: dockerConfig("other.example", registryPassword)})
	r.create(pullingPod("a", host+"/team/app:1", "elsewhere"))
	if got := r.ended("a"); got.Status.Reason != ReasonErrImagePull {
		t.Errorf("status = %+v", got.Status)
	}
	mu.Lock()
	if asked == 0 || len(sent) > 0 {
		t.Errorf("asked %d times, and sent %q", asked, sent)
	}
	mu.Unlock()
	// The same registry is sent what is for it: the test could have failed.
	r.secret("here", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: dockerConfig(host, registryPassword)})
	r.create(pullingPod("b", host+"/team/app:1", "here"))
	r.ended("b")
	mu.Lock()
	defer mu.Unlock()
	if len(sent) == 0 {
		t.Error("a registry is not sent what is for it")
	}
}
