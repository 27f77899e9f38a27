//go:build docker

package pod

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/registrytest"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
	"github.com/skiff-ml/skiff/scheduler"
	"github.com/skiff-ml/skiff/store"
)

// startRegistry runs a registry with the image of the tests in it, which this
// machine then has under that name no more.
func startRegistry(t *testing.T) (host, image string) {
	t.Helper()
	reg := registrytest.Start(t)
	image = reg.Host + "/team/busybox:1"
	for _, args := range [][]string{
		{"tag", "skiffdev/busybox:1", image}, {"--config", reg.Config, "push", "-q", image}, {"rmi", image},
	} {
		if out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	return reg.Host, image
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
	r.secret("right", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: registrytest.DockerConfig(host, registrytest.Password)})
	r.secret("old", core.SecretDockerConfig, map[string]string{core.DockerConfigKey: fmt.Sprintf(`{%q: {"username": %q, "password": %q}}`, "http://"+host+"/v1/", registrytest.User, registrytest.Password)})
	r.secret("wrong", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: registrytest.DockerConfig(host, "wrong-password")})
	r.secret("other-host", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: registrytest.DockerConfig("other.example", registrytest.Password)})
	r.secret("opaque", core.SecretOpaque, map[string]string{"password": registrytest.Password})
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
			if strings.Contains(got.Status.Message, registrytest.Password) || strings.Contains(got.Status.Message, "wrong-password") {
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
	r.secret("elsewhere", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: registrytest.DockerConfig("other.example", registrytest.Password)})
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
	r.secret("here", core.SecretDockerConfigJSON, map[string]string{core.DockerConfigJSONKey: registrytest.DockerConfig(host, registrytest.Password)})
	r.create(pullingPod("b", host+"/team/app:1", "here"))
	r.ended("b")
	mu.Lock()
	defer mu.Unlock()
	if len(sent) == 0 {
		t.Error("a registry is not sent what is for it")
	}
}
