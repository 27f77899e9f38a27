package pod

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/store"
)

func (r *rig) claim(name string) *core.PersistentVolumeClaim {
	r.t.Helper()
	claim := &core.PersistentVolumeClaim{ObjectMeta: core.ObjectMeta{Name: name, Namespace: "default"}}
	claim.Default()
	if _, err := r.store.Commit(context.Background(), store.Op{Verb: store.Create, Kind: Claims, Object: claim}); err != nil {
		r.t.Fatalf("create claim %s: %v", name, err)
	}
	return claim
}

func (r *rig) deleteClaim(name string) {
	r.t.Helper()
	op := store.Op{Verb: store.Delete, Key: store.Key{Kind: Claims, Namespace: "default", Name: name}}
	if _, err := r.store.Commit(context.Background(), op); err != nil {
		r.t.Fatalf("delete claim %s: %v", name, err)
	}
}

func (r *rig) claimGone(name string) bool {
	_, err := r.store.Get(context.Background(), store.Key{Kind: Claims, Namespace: "default", Name: name})
	return err != nil
}

func mounting(name, claim string, command ...string) *core.Pod {
	p := podNamed(name, command...)
	p.Spec.Volumes = []core.Volume{{Name: "v", PersistentVolumeClaim: &core.PersistentVolumeClaimVolume{ClaimName: claim}}}
	p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{{Name: "v", MountPath: "/data"}}
	return p
}

// volumeOf is the folder that a pod's container was given.
func (r *rig) volumeOf(p *core.Pod) string {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for _, m := range r.world.specs[containerName(p.UID, "main", 0)].Mounts {
		if m.Path == "/data" {
			return m.HostPath
		}
	}
	return ""
}

func TestClaims(t *testing.T) {
	r := newRig(t, nil)
	r.create(mounting("none", "missing", "exit", "0"))
	if got := r.ended("none"); got.Status.Reason != ReasonConfig || !strings.Contains(got.Status.Message, `claim "missing" is not in namespace default`) {
		t.Errorf("status = %+v", got.Status)
	}
	r.claim("data")
	first := r.create(mounting("first", "data", "exit", "0"))
	r.ended("first")
	folder := r.volumeOf(first)
	if folder == "" {
		t.Fatal("nothing was mounted")
	}
	if err := os.WriteFile(filepath.Join(folder, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second := r.create(mounting("second", "data", "hang"))
	r.running("second")
	if again := r.volumeOf(second); again != folder {
		t.Errorf("the second pod got %s, the first %s", again, folder)
	}
	// It goes when nothing mounts it, and not before.
	r.deleteClaim("data")
	r.create(mounting("late", "data", "exit", "0"))
	if got := r.ended("late"); !strings.Contains(got.Status.Message, "is being deleted") {
		t.Errorf("status = %+v", got.Status)
	}
	if _, err := os.Stat(filepath.Join(folder, "kept")); err != nil || r.claimGone("data") {
		t.Errorf("the volume of a running pod is gone: %v", err)
	}
	r.delete("second")
	r.eventually("the claim is gone", func() bool { return r.claimGone("data") })
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	// One of that name that is made anew is empty, and is let go by a controller
	// that comes later.
	r.claim("data")
	third := r.create(mounting("third", "data", "exit", "0"))
	r.ended("third")
	if again := r.volumeOf(third); again == folder || again == "" {
		t.Errorf("a new claim got the old one's folder %s", again)
	}
	r.down()
	r.deleteClaim("data")
	if r.claimGone("data") {
		t.Error("nothing was there to remove the volume, and the claim is gone")
	}
	r.up()
	r.eventually("the claim is gone after a restart", func() bool { return r.claimGone("data") })
}
