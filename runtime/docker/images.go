package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

// refreshEvery is how often an image that is there, and for which nobody asked
// for a policy, is compared with its registry: its tag may have moved on, but
// not between two steps of one run.
const refreshEvery = 10 * time.Minute

// images makes images present, each pull once however many ask for it.
type images struct {
	api    dockerapi.API
	config string // docker's config.json
	now    func() time.Time

	mu      sync.Mutex
	flights map[flightKey]*flight
	fresh   map[string]time.Time // when a ref was last compared with its registry
}

// flightKey: two requests share a pull where they would send the same.
type flightKey struct{ ref, auth string }

// flight is one pull under way. The last who waits for it ends it.
type flight struct {
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
	waiting map[chan runtime.ImageProgress]struct{}
}

func newImages(api dockerapi.API, config string) *images {
	return &images{api: api, config: config, now: time.Now, flights: map[flightKey]*flight{}, fresh: map[string]time.Time{}}
}

// PrepareImage makes an image present and says what it is.
func (b *Backend) PrepareImage(ctx context.Context, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	if progress == nil {
		progress = func(runtime.ImageProgress) {}
	}
	img, err := b.images.prepare(ctx, req, progress)
	if ctx.Err() != nil && err != nil {
		return runtime.Image{}, context.Cause(ctx)
	}
	if dockerapi.IsUnavailable(err) && !errors.Is(err, runtime.ErrImageUnavailable) {
		return runtime.Image{}, b.engineError("prepare image "+req.Ref, err)
	}
	return img, err
}

// parseRef reads a reference as a user writes it, with the tag "latest" where
// it names none.
func parseRef(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		if len(ref) > 200 {
			ref = ref[:200] + "…"
		}
		return nil, &problem.Error{
			Op: "prepare image", Object: fmt.Sprintf("%q", ref),
			Err:  fmt.Errorf("%w: %w: %w", runtime.ErrImageUnavailable, problem.ErrInvalid, err),
			Hint: "a reference looks like [registry/]repository[:tag][@sha256:…]",
		}
	}
	return reference.TagNameOnly(named), nil
}

// defaultPolicy is Kubernetes': what has a tag of its own does not move.
func defaultPolicy(named reference.Named) runtime.PullPolicy {
	if _, pinned := named.(reference.Digested); pinned {
		return runtime.PullIfNotPresent
	}
	if t, ok := named.(reference.Tagged); ok && t.Tag() != "latest" {
		return runtime.PullIfNotPresent
	}
	return runtime.PullAlways
}

func (i *images) prepare(ctx context.Context, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	named, err := parseRef(req.Ref)
	if err != nil {
		return runtime.Image{}, err
	}
	if len(req.Identities) > 0 {
		return i.pinned(ctx, named, req, progress)
	}
	ref := named.String()
	have, err := i.api.ImageInspect(ctx, ref)
	present := err == nil
	if err != nil && !dockerapi.IsNotFound(err) {
		return runtime.Image{}, err
	}
	policy := cmp.Or(req.Policy, defaultPolicy(named))
	switch {
	case policy == runtime.PullNever && !present:
		return runtime.Image{}, unavailable(req.Ref, "NotPresent", errors.New("it is not on this machine and its pull policy is Never"),
			"load it with docker load or docker pull, or change imagePullPolicy")
	case present && policy != runtime.PullAlways, present && req.Policy == "" && i.isFresh(ref):
		return describe(have, named), nil
	}
	err = i.pull(ctx, named, req, progress)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return runtime.Image{}, err
	case present && req.Policy == "":
		// Nobody asked for the newest one; the one at hand does.
		i.setFresh(ref)
		progress(runtime.ImageProgress{Status: "registry not available, using the image at hand"})
		return describe(have, named), nil
	default:
		return runtime.Image{}, err
	}
	i.setFresh(ref)
	if have, err = i.api.ImageInspect(ctx, ref); err != nil {
		return runtime.Image{}, fmt.Errorf("prepare image %s: it was pulled but is not there: %w", req.Ref, err)
	}
	return describe(have, named), nil
}

func (i *images) isFresh(ref string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	at, ok := i.fresh[ref]
	return ok && i.now().Sub(at) < refreshEvery
}

func (i *images) setFresh(ref string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fresh[ref] = i.now()
}

// describe reads what an image says of itself. Its digest is the registry's
// where it has one of this repository, and else the image's own id: imported
// images have no other.
func describe(img dockerapi.Image, named reference.Named) runtime.Image {
	out := runtime.Image{ID: img.ID, Digest: img.ID}
	digests := slices.Sorted(slices.Values(img.RepoDigests))
	for _, d := range digests {
		c, err := reference.ParseNormalizedNamed(d)
		if err != nil || c.Name() != named.Name() {
			continue
		}
		if p, ok := c.(reference.Digested); ok {
			out.Digest = p.Digest().String()
			break
		}
	}
	if c := img.Config; c != nil {
		out.Entrypoint, out.Cmd, out.Env = c.Entrypoint, c.Cmd, c.Env
		out.WorkingDir, out.User = c.WorkingDir, c.User
	}
	return out
}

// pull joins the pull that is under way, or starts one.
func (i *images) pull(ctx context.Context, named reference.Named, req runtime.ImageRequest, progress func(runtime.ImageProgress)) error {
	auth, err := i.auth(ctx, reference.Domain(named), req.Auths)
	if err != nil {
		return fmt.Errorf("prepare image %s: %w", req.Ref, err)
	}
	news := make(chan runtime.ImageProgress, 1)
	f := i.join(flightKey{named.String(), auth}, news)
	defer i.leave(f, news)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p := <-news:
			progress(p)
		case <-f.done:
			select {
			case p := <-news:
				progress(p)
			default:
			}
			return f.err
		}
	}
}

// join adds a listener to a pull. The pull does not belong to the first who
// asked: it lives as long as anybody waits for it.
func (i *images) join(key flightKey, news chan runtime.ImageProgress) *flight {
	i.mu.Lock()
	defer i.mu.Unlock()
	f := i.flights[key]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{cancel: cancel, done: make(chan struct{}), waiting: map[chan runtime.ImageProgress]struct{}{}}
		i.flights[key] = f
		go func() {
			err := i.fetch(ctx, key, func(p runtime.ImageProgress) { i.spread(f, p) })
			i.mu.Lock()
			defer i.mu.Unlock()
			f.err = err
			if i.flights[key] == f {
				delete(i.flights, key)
			}
			close(f.done)
			cancel()
		}()
	}
	f.waiting[news] = struct{}{}
	return f
}

// leave ends a pull that nobody waits for, and waits until it has ended.
func (i *images) leave(f *flight, news chan runtime.ImageProgress) {
	i.mu.Lock()
	delete(f.waiting, news)
	last := len(f.waiting) == 0
	if last {
		// Who asks from now on starts anew: this one is being ended.
		for key, other := range i.flights {
			if other == f {
				delete(i.flights, key)
			}
		}
	}
	i.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}

// spread gives all listeners the latest news; one that is slow misses some.
func (i *images) spread(f *flight, p runtime.ImageProgress) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for news := range f.waiting {
		select {
		case <-news:
		default:
		}
		news <- p
	}
}

// unavailable is an error of a pull, for people.
func unavailable(ref, reason string, err error, hint string) error {
	return &problem.Error{
		Op: "prepare image", Object: ref,
		Err: fmt.Errorf("%w (%s): %w", runtime.ErrImageUnavailable, reason, err), Hint: hint,
	}
}

// pullError classes what a registry or the engine said. There are only words to
// go by: the engine passes them on from inside a successful answer.
func pullError(ref, domain string, err error) error {
	text := strings.ToLower(err.Error())
	contains := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case dockerapi.IsUnavailable(err) && !contains("dial tcp", "lookup "):
		return err // the engine's own absence
	case contains("no such host", "dial tcp", "connection refused", "i/o timeout", "tls handshake", "x509", "network is unreachable",
		"no route to host", "proxyconnect", "server gave http response", "client.timeout", "request canceled", "unexpected eof", "connection reset",
		"bad gateway", "service unavailable"):
		return unavailable(ref, "RegistryUnreachable", err,
			"see that this machine reaches "+domain+" (name service, proxy, certificates), or load the image by hand")
	case contains("unauthorized", "authentication required", "no basic auth", "incorrect username or password", "forbidden"):
		return unavailable(ref, "Unauthorized", err, "give credentials for "+domain+" by an imagePullSecret or docker login")
	case contains("pull access denied", "denied"):
		return unavailable(ref, "NotFoundOrDenied", err,
			"check the name; if the repository is private, give credentials for "+domain+" by an imagePullSecret or docker login")
	case contains("not found", "manifest unknown", "name unknown", "does not exist", "no matching manifest"):
		return unavailable(ref, "NotFound", err, "check the name and the tag, and that there is one for this processor")
	case contains("no space left"):
		return unavailable(ref, "DiskFull", err, "make room on the engine's disk")
	}
	return unavailable(ref, "PullFailed", err, "see the engine's log")
}
