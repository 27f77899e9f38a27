//go:build docker

package docker_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker"
	"github.com/skiff-ml/skiff/runtime/docker/registrytest"
)

// push puts an image that this machine has no layer of into the registry.
func push(t *testing.T, reg *registrytest.Registry, tag string) string {
	t.Helper()
	ref := reg.Host + "/team/app-" + uuid.NewString()[:8] + ":" + tag
	content := make([]byte, 3<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"import", "--change", `CMD ["/content"]`, "-", ref}, {"--config", reg.Config, "push", "-q", ref}, {"rmi", ref},
	} {
		cmd := exec.CommandContext(t.Context(), "docker", args...)
		cmd.Stdin = &layer
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	return ref
}

func TestRegistry(t *testing.T) {
	reg := registrytest.Start(t)
	r := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(t.TempDir(), "none.json") })
	good := map[string]string{reg.Host: registrytest.Basic(registrytest.User, registrytest.Password)}
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
		if strings.Contains(err.Error(), registrytest.Password) {
			t.Errorf("the error tells the password: %v", err)
		}
	}

	ref := push(t, reg, "1")
	refused(runtime.ImageRequest{Ref: ref}, "Unauthorized", "imagePullSecret")
	refused(runtime.ImageRequest{Ref: ref, Auths: map[string]string{reg.Host: registrytest.Basic(registrytest.User, "wrong")}}, "Unauthorized")
	refused(runtime.ImageRequest{Ref: ref, Auths: map[string]string{"other.example": registrytest.Basic(registrytest.User, registrytest.Password)}}, "Unauthorized")
	refused(runtime.ImageRequest{Ref: reg.Host + "/team/none:1", Auths: good}, "NotFound")

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
	configured := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(reg.Config, "config.json") })
	latest := push(t, reg, "latest")
	name := strings.TrimSuffix(latest, ":latest")
	if _, err := prepare(configured.b, runtime.ImageRequest{Ref: name}, nil); err != nil {
		t.Errorf("with docker's configuration: %v", err)
	}

	// The registry goes away.
	reg.Stop()
	fresh := newRig(t, "", func(c *docker.Config) { c.DockerConfig = filepath.Join(reg.Config, "config.json") })
	if _, err := prepare(fresh.b, runtime.ImageRequest{Ref: name}, nil); err != nil {
		t.Errorf("the image at hand, registry away: %v", err)
	}
	refused(runtime.ImageRequest{Ref: latest, Policy: runtime.PullAlways}, "RegistryUnreachable")
	refused(runtime.ImageRequest{Ref: reg.Host + "/team/other:1"}, "RegistryUnreachable")
	for _, image := range []string{latest, pinned} {
		if _, err := r.docker(t.Context(), "rmi", image); err != nil {
			t.Error(err)
		}
	}
}
