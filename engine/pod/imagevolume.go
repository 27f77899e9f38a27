package pod

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// imageMount is a folder of an image that a container of the pod mounts.
type imageMount struct {
	volume  string
	image   *core.ImageVolume
	subPath string
}

// imageMounts lists, each once, what is needed by containers that are still to
// be made.
func (r *run) imageMounts() []imageMount {
	p := r.pod()
	var list []imageMount
	for _, u := range r.units {
		if _, made := r.state(u); made {
			continue
		}
		for _, vm := range u.container.VolumeMounts {
			i := slices.IndexFunc(p.Spec.Volumes, func(v core.Volume) bool { return v.Name == vm.Name && v.Image != nil })
			if i < 0 {
				continue
			}
			m := imageMount{volume: vm.Name, image: p.Spec.Volumes[i].Image, subPath: vm.SubPath}
			if !slices.Contains(list, m) {
				list = append(list, m)
			}
		}
	}
	return list
}

// prepareImageMount fetches the image behind a mount and unpacks it, before the
// pod takes one of the places for starts: that may take as long as a pull. The
// error is an *ending or ctx's cause.
func (r *run) prepareImageMount(ctx context.Context, m imageMount) error {
	if _, err := r.imageVolumes(); err != nil {
		return &ending{reason: ReasonConfig, message: fmt.Sprintf("volume %q: %v", m.volume, err)}
	}
	if _, err := r.fetch(ctx, imageRequest(m.image)); err != nil {
		return err
	}
	for backoff := r.c.cfg.ImageBackoff; ; {
		_, err := r.imageFolder(ctx, m.image, m.subPath)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, runtime.ErrUnavailable):
			return &ending{reason: ReasonConfig, message: fmt.Sprintf("volume %q: %v", m.volume, err)}
		}
		if err := r.say(ctx, ReasonRuntime, fmt.Sprintf("volume %q: %v; next try in %s", m.volume, err, backoff)); err != nil {
			return err
		}
		if err := sleep(ctx, backoff); err != nil {
			return err
		}
	}
}

// imageFolder is the folder on the host of a part of an image, which was fetched
// before; its errors are shown to the user.
func (r *run) imageFolder(ctx context.Context, image *core.ImageVolume, subPath string) (string, error) {
	volumes, err := r.imageVolumes()
	if err != nil {
		return "", err
	}
	if subPath != "" && !filepath.IsLocal(subPath) {
		return "", fmt.Errorf("subPath %q leads out of the volume", subPath)
	}
	req := imageRequest(image)
	req.Policy = runtime.PullNever // one pod sees one state of a tag
	return volumes.ImageVolume(ctx, req, path.Join("/", filepath.ToSlash(subPath)))
}

// imageVolumes is the backend, where it can mount images.
func (r *run) imageVolumes() (runtime.ImageVolumes, error) {
	volumes, able := r.c.backend.(runtime.ImageVolumes)
	if !able {
		return nil, fmt.Errorf("runtime %s cannot mount images; use a runtime that has them, such as docker", r.c.backend.Name())
	}
	return volumes, nil
}

func imageRequest(image *core.ImageVolume) runtime.ImageRequest {
	return runtime.ImageRequest{Ref: image.Reference, Policy: runtime.PullPolicy(image.PullPolicy)}
}
