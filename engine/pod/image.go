package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
)

// Progress of a pull is shown first after progressFirst and then every
// progressEvery: an image that is there already costs no commit.
const (
	progressFirst = time.Second
	progressEvery = 3 * time.Second
)

// prepareImages makes the images of all containers and volumes ready, at once.
func (r *run) prepareImages(ctx context.Context) error {
	volumes := r.imageMounts()
	if len(r.units) == 1 && len(volumes) == 0 {
		return r.prepareImage(ctx, r.units[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range volumes {
		group.Go(func() error { return r.prepareImageMount(ctx, m) })
	}
	for _, u := range r.units {
		group.Go(func() error { return r.prepareImage(ctx, u) })
	}
	return group.Wait()
}

// prepareImage makes one image ready, trying again where that may help. The
// error is an *ending or ctx's cause.
func (r *run) prepareImage(ctx context.Context, u *unit) error {
	p := r.pod()
	req := runtime.ImageRequest{Ref: u.container.Image, Policy: runtime.PullPolicy(u.container.ImagePullPolicy)}
	if p.Spec.Skiff != nil {
		req.Identities = p.Spec.Skiff.Images[u.container.Image]
	}
	if con, known := r.state(u); known && stateRank(con.State) >= stateRank(runtime.StateRunning) {
		// The container has its command already: only the digest is of interest.
		req.Policy = runtime.PullNever
		if image, err := r.c.backend.PrepareImage(ctx, req, func(runtime.ImageProgress) {}); err == nil {
			u.image = image
		}
		return nil
	}
	if ext := p.Spec.Skiff; ext != nil && ext.Environment != nil && !u.init && u.container.Name == p.Spec.Containers[0].Name {
		req.Pip = ext.Environment.Calls
	}
	if !r.asked() {
		req.Policy = runtime.PullNever // what is not here is fetched when it is needed
	}
	image, err := r.fetch(ctx, req)
	if err == nil {
		u.image = image
	}
	return err
}

// fetch has the backend prepare an image, with the pod's credentials, and tries
// again where that may help. The error is an *ending or ctx's cause.
func (r *run) fetch(ctx context.Context, req runtime.ImageRequest) (runtime.Image, error) {
	p := r.pod()
	if req.Policy == "" {
		// The published default would ask a registry for every image without a
		// tag, each time; a workstation may be offline.
		req.Policy = runtime.PullIfNotPresent
	}
	auths, missed, err := r.c.pullAuths(ctx, p)
	if err != nil {
		return runtime.Image{}, err
	}
	req.Auths = auths
	backoff := r.c.cfg.ImageBackoff
	for try := 1; ; try++ {
		image, err := r.pull(ctx, req)
		switch {
		case err == nil:
			return image, nil
		case ctx.Err() != nil:
			return runtime.Image{}, context.Cause(ctx)
		case !r.asked():
			return runtime.Image{}, err
		case errors.Is(err, runtime.ErrImageChanged):
			return runtime.Image{}, &ending{reason: ReasonImageUnavailable, message: err.Error()}
		case errors.Is(err, runtime.ErrPolicy):
			return runtime.Image{}, &ending{reason: ReasonPolicy, message: err.Error()}
		case errors.Is(err, runtime.ErrImageUnavailable) && !r.c.pulls.Load():
			// This backend knows at once what it can run; asking again is vain.
			return runtime.Image{}, &ending{reason: ReasonImageUnavailable, message: fmt.Sprintf("image %s: %v", req.Ref, err)}
		case errors.Is(err, runtime.ErrImageUnavailable) && req.Policy == runtime.PullNever:
			return runtime.Image{}, &ending{reason: ReasonErrNeverPull, message: fmt.Sprintf("image %s is not on this machine and imagePullPolicy is Never: %v", req.Ref, err)}
		case errors.Is(err, runtime.ErrUnavailable):
			try = 0 // not the image's fault
		case try >= r.c.cfg.ImageTries:
			return runtime.Image{}, &ending{reason: ReasonErrImagePull, message: fmt.Sprintf("image %s could not be had in %d tries: %s%s", req.Ref, try, withHint(err), missed)}
		}
		if err := r.say(ctx, ReasonImageBackOff, fmt.Sprintf("image %s: %v; next try in %s%s", req.Ref, err, backoff, missed)); err != nil {
			return runtime.Image{}, err
		}
		if err := sleep(ctx, backoff); err != nil {
			return runtime.Image{}, err
		}
		backoff = min(2*backoff, 5*time.Minute)
	}
}

// withHint says what to do about an image, where the backend does not.
func withHint(err error) string {
	var p *problem.Error
	if errors.As(err, &p) && p.Hint != "" {
		return err.Error()
	}
	return err.Error() + "; check its name, the registry and the credentials"
}

// pull asks the backend for an image and shows the progress meanwhile.
func (r *run) pull(ctx context.Context, req runtime.ImageRequest) (runtime.Image, error) {
	type result struct {
		image runtime.Image
		err   error
	}
	done := make(chan result, 1)
	news := make(chan runtime.ImageProgress, 1)
	go func() {
		image, err := r.c.backend.PrepareImage(ctx, req, func(p runtime.ImageProgress) {
			select { // only the newest counts
			case <-news:
			default:
			}
			select {
			case news <- p:
			default:
			}
		})
		done <- result{image, err}
	}()
	timer := time.NewTimer(progressFirst)
	defer timer.Stop()
	for {
		select {
		case got := <-done:
			return got.image, got.err
		case <-timer.C:
		}
		timer.Reset(progressEvery)
		text := "prepares image " + req.Ref
		select {
		case p := <-news:
			text += ": " + progressText(p)
		default:
		}
		if err := r.say(ctx, ReasonPulling, text); err != nil {
			got := <-done
			return got.image, errors.Join(err, got.err)
		}
	}
}

func progressText(p runtime.ImageProgress) string {
	const mb = 1 << 20
	switch {
	case p.Total > 0:
		return fmt.Sprintf("%s, %d of %d MiB", p.Status, p.Current/mb, p.Total/mb)
	case p.Current > 0:
		return fmt.Sprintf("%s, %d MiB", p.Status, p.Current/mb)
	default:
		return p.Status
	}
}

// imageID is what a container status calls the image that ran.
func imageID(image runtime.Image) string {
	if image.Digest != "" {
		return image.Digest
	}
	return image.ID
}

// setContainerStatus puts a container's status in place.
func setContainerStatus(p *core.Pod, s core.ContainerStatus) {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Name == s.Name {
			p.Status.ContainerStatuses[i] = s
			return
		}
	}
	p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, s)
}
