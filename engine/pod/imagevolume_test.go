package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// shelf is a world whose backend can mount images.
type shelf struct {
	*world

	mu    sync.Mutex
	asked []string
	fails []error // the first answers
}

func (s *shelf) ImageVolume(_ context.Context, req runtime.ImageRequest, path string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, fmt.Sprint(req.Ref, " ", req.Policy, " ", path))
	if len(s.fails) > 0 {
		err := s.fails[0]
		s.fails = s.fails[1:]
		return "", err
	}
	return "/images/" + req.Ref + path, nil
}

func podWithImage(mount core.VolumeMount) *core.Pod {
	p := podNamed("a", "run", "1")
	p.Spec.Volumes = []core.Volume{{Name: "model", Image: &core.ImageVolume{Reference: "models:1"}}}
	mount.Name = "model"
	p.Spec.Containers[0].VolumeMounts = []core.VolumeMount{mount}
	return p
}

func TestImageVolumeIsMountedReadOnly(t *testing.T) {
	var s *shelf
	r := newRig(t, func(cfg *Config) {
		s = &shelf{world: cfg.Backend.(*world), fails: []error{fmt.Errorf("ask the engine: %w", runtime.ErrUnavailable)}}
		cfg.Backend = s
	})
	created := r.create(podWithImage(core.VolumeMount{MountPath: "/oci/models", SubPath: "models"}))
	if p := r.ended("a"); p.Status.Phase != core.PodSucceeded {
		t.Fatalf("it ended as %+v", p.Status)
	}
	want := []runtime.Mount{{HostPath: "/images/models:1/models", Path: "/oci/models", ReadOnly: true}}
	s.world.mu.Lock()
	got := s.specs[containerName(created.UID, "main", 0)].Mounts
	s.world.mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, asked := range s.asked {
		if asked != "models:1 Never /models" {
			t.Errorf("asked for %q", asked)
		}
	}
}

func TestImageVolumeThatCannotBeMountedFailsThePod(t *testing.T) {
	tests := []struct {
		name  string
		mount core.VolumeMount
		able  bool
		fails []error
		want  string
	}{
		{name: "backend without images", mount: core.VolumeMount{MountPath: "/m"}, want: "cannot mount images"},
		{name: "refused", mount: core.VolumeMount{MountPath: "/m"}, able: true, fails: []error{errors.New("the image has no folder /m")}, want: `volume "model": the image has no folder /m`},
		{name: "out of the image", mount: core.VolumeMount{MountPath: "/m", SubPath: "../x"}, able: true, want: "leads out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(cfg *Config) {
				if tt.able {
					cfg.Backend = &shelf{world: cfg.Backend.(*world), fails: tt.fails}
				}
			})
			r.create(podWithImage(tt.mount))
			p := r.ended("a")
			if p.Status.Phase != core.PodFailed || p.Status.Reason != ReasonConfig || !strings.Contains(p.Status.Message, tt.want) {
				t.Errorf("it ended as %+v, want a message with %q", p.Status, tt.want)
			}
		})
	}
}
