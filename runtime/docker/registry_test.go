//go:build docker

package docker_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
)

// A registry's one user. The hash is bcrypt's, of the least cost.
const (
	registryUser     = "skiff"
	registryPassword = "let-me-in"
	registryHash     = "$2a$04$y/AIhGQPynYxppaPxjEjCumWnj/czc7Go.x10qEsC1JWJOdCzW5cS"
)

// registry is a real one on the loopback interface, which wants a password.
type registry struct {
	*testing.T
	host   string
	cmd    *exec.Cmd
	config string // folder of a docker config.json that knows the password
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed (Debian's package of that name)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reg := &registry{T: t, host: l.Addr().String(), config: t.TempDir()}
	_ = l.Close()
	dir := t.TempDir()
	auth, err := json.Marshal(map[string]any{"auths": map[string]any{reg.host: map[string]string{"auth": basic(registryUser, registryPassword)}}})
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %s/data}
  delete: {enabled: true}
http: {addr: %s}
auth:
  htpasswd: {realm: test, path: %s/htpasswd}
`, dir, reg.host, dir)
	for path, text := range map[string]string{
		filepath.Join(dir, "config.yml"):         config,
		filepath.Join(dir, "htpasswd"):           registryUser + ":" + registryHash + "\n",
		filepath.Join(reg.config, "config.json"): string(auth),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reg.cmd = exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	if err := reg.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.stop)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := client.Get("http://" + reg.host + "/v2/"); err == nil {
			_ = resp.Body.Close()
			return reg
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not answer")
		}
	}
}

// stop ends the registry; it may be called twice.
func (reg *registry) stop() {
	if reg.cmd.ProcessState == nil {
		_ = reg.cmd.Process.Kill()
		_ = reg.cmd.Wait() // It was killed.
	}
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// push puts an image that this machine has no layer of into the registry.
func (reg *registry) push(tag string) string {
	reg.Helper()
	ref := reg.host + "/team/app-" + uuid.NewString()[:8] + ":" + tag
	content := make([]byte, 3<<20)
	if _, err := rand.Read(content); err != nil {
		reg.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		reg.Fatal(err)
	}
	for _, args := range [][]string{
		{"import", "--change", `CMD ["/content"]`, "-", ref}, {"--config", reg.config, "push", "-q", ref}, {"rmi", ref},
	} {
		cmd := exec.CommandContext(reg.Context(), "docker", args...)
		cmd.Stdin = &layer
		if out, err := cmd.CombinedOutput(); err != nil {
			reg.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	return ref
}

func TestRegistry(t *testing.T) {
	reg := newRegistry(t)
	r := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(t.TempDir(), "none.json") })
	good := map[string]string{reg.host: basic(registryUser, registryPassword)}
	prepare := func(b *docker.Backend, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
		return b.PrepareImage(t.Context(), req, progress)
	}
	refused := func(req runtime.ImageRequest, words ...string) {
		t.Helper()
		_, err := prepare(r.b, req, nil)
		if !errors.Is(err, runtime.ErrImageUnavailable) {
			t.Errorf("%s: %v", req.Ref, err)
			return
		}
		for _, w := range append(words, req.Ref) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
		if strings.Contains(err.Error(), registryPassword) {
			t.Errorf("the error tells the password: %v", err)
		}
	}

	ref := reg.push("1")
	refused(runtime.ImageRequest{Ref: ref}, "Unauthorized", "imagePullSecret")
	refused(runtime.ImageRequest{Ref: ref, Auths: map[string]string{reg.host: basic(registryUser, "wrong")}}, "Unauthorized")
	refused(runtime.ImageRequest{Ref: ref, Auths: map[string]string{"other.example": basic(registryUser, registryPassword)}}, "Unauthorized")
	refused(runtime.ImageRequest{Ref: reg.host + "/team/none:1", Auths: good}, "NotFound")

	// Many at once, with progress.
	var all sync.WaitGroup
	var mu sync.Mutex
	var img runtime.Image
	phrases := map[string]bool{}
	for range 8 {
		all.Go(func() {
			got, err := prepare(r.b, runtime.ImageRequest{Ref: ref, Auths: good}, func(p runtime.ImageProgress) {
				mu.Lock()
				defer mu.Unlock()
				phrases[p.Status] = true
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("pull: %v", err)
			}
			img = got
		})
	}
	all.Wait()
	if !strings.HasPrefix(img.Digest, "sha256:") || img.Digest == img.ID || img.ID == "" || len(img.Cmd) == 0 {
		t.Errorf("got %+v", img)
	}
	if len(phrases) < 2 {
		t.Errorf("progress said only %v", phrases)
	}

	// What the tag is now may change; the digest may not.
	pinned := ref[:strings.LastIndex(ref, ":")] + "@" + img.Digest
	if _, err := r.docker(t.Context(), "rmi", ref); err != nil {
		t.Fatal(err)
	}
	again, err := prepare(r.b, runtime.ImageRequest{Ref: pinned, Auths: good}, nil)
	if err != nil || again.Digest != img.Digest || again.ID != img.ID {
		t.Errorf("by digest: %+v, %v", again, err)
	}

	// The machine's own credentials.
	configured := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(reg.config, "config.json") })
	latest := reg.push("latest")
	name := strings.TrimSuffix(latest, ":latest")
	if _, err := prepare(configured.b, runtime.ImageRequest{Ref: name}, nil); err != nil {
		t.Errorf("with docker's configuration: %v", err)
	}

	// The registry goes away.
	reg.stop()
	fresh := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(reg.config, "config.json") })
	if _, err := prepare(fresh.b, runtime.ImageRequest{Ref: name}, nil); err != nil {
		t.Errorf("the image at hand, registry away: %v", err)
	}
	refused(runtime.ImageRequest{Ref: latest, Policy: runtime.PullAlways}, "RegistryUnreachable")
	refused(runtime.ImageRequest{Ref: reg.host + "/team/other:1"}, "RegistryUnreachable")
	for _, image := range []string{latest, pinned} {
		if _, err := r.docker(t.Context(), "rmi", image); err != nil {
			t.Error(err)
		}
	}
}
