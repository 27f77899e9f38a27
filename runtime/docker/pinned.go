package docker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// identity is what a digest or an image's id looks like. Anything else could be
// a reference to some other image.
var identity = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// pinned makes an image present that is known by digest or id, whatever its
// reference means by now.
func (i *images) pinned(ctx context.Context, named reference.Named, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	have, found, err := i.local(ctx, named, req)
	if err != nil || found {
		return have, err
	}
	if req.Policy != runtime.PullNever {
		for _, id := range req.Identities {
			exact, err := reference.ParseNormalizedNamed(named.Name() + "@" + id)
			if err != nil || !identity.MatchString(id) {
				continue
			}
			if err := i.pull(ctx, exact, req, progress); err != nil {
				if errors.Is(err, runtime.ErrImageUnavailable) {
					continue // an image's own id is no registry's digest
				}
				return runtime.Image{}, err
			}
			if have, found, err = i.local(ctx, exact, req); err != nil || found {
				return have, err
			}
		}
	}
	now := "not here"
	if img, err := i.api.ImageInspect(ctx, named.String()); err == nil {
		now = describe(img, named).Digest + " here"
	}
	return runtime.Image{}, fmt.Errorf("image %s is %s; wanted is %s, which is neither on this machine nor to be had by its digest: %w",
		req.Ref, now, strings.Join(req.Identities, " or "), runtime.ErrImageChanged)
}

// local looks for the image on this machine: under its reference, then by each
// identity.
func (i *images) local(ctx context.Context, named reference.Named, req runtime.ImageRequest) (runtime.Image, bool, error) {
	refs := []string{named.String()}
	for _, id := range req.Identities {
		if identity.MatchString(id) {
			refs = append(refs, id, named.Name()+"@"+id)
		}
	}
	for _, ref := range refs {
		img, err := i.api.ImageInspect(ctx, ref)
		if dockerapi.IsNotFound(err) {
			continue
		}
		if err != nil {
			return runtime.Image{}, false, err
		}
		if out := describe(img, named); req.Check(out) == nil {
			return out, true, nil
		}
	}
	return runtime.Image{}, false, nil
}
