package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

var _ runtime.Backend = (*Backend)(nil)

// Name is what Backend.Name returns.
const Name = "docker"

const (
	// launcherPatience is how long a launcher may take from the start of its
	// container until it listens, on a machine that is busy with something else.
	launcherPatience = 30 * time.Second
	// stopMargin is what a launcher gets beyond the command's grace, to end and
	// reap everything and to write its record, before the engine kills it.
	stopMargin = 10 * time.Second
	// adoptPatience bounds the pauses in which a name that is taken by nothing
	// yet is asked for again: about five seconds in all.
	adoptPatience = 2 * time.Second
	// teardown is how long an engine may take to notice that a container ended.
	teardown = 30 * time.Second
)

// Backend is a runtime.Backend over one Docker engine. Make it with New; Close
// it when nothing uses it any more. Containers go on without it.
type Backend struct {
	cfg    Config
	api    dockerapi.API
	host   *host.Host
	bundle string // the trust bundle's path on this machine, "" for none
	images *images
	nets   *networks
	starts chan struct{}

	mu     sync.Mutex
	engine *engine              // nil until the engine answered, and after it was lost
	metas  map[string]meta      // by container id
	gone   map[string]time.Time // containers that this daemon removes or has just removed
	groups map[string]group     // control groups, by container id
	// watchers hear of what the engine has no event for.
	watchers map[*watcher]struct{}
	naming   map[string]*naming // names that are being given

	sweep sync.Mutex
	swept bool // leftovers of image volumes were removed
}

// engine is what was learnt of the engine since it was last reached.
type engine struct {
	info  dockerapi.Info
	api   string
	gpu   gpuPath
	notes []string
	rules policy.Rules
	// limits are what the engine may raise.
	limits engineLimits
}

// meta is what never changes of a container.
type meta struct {
	id, name, control string
	// user is whom the command runs as, "" for root; devices whether it was
	// granted any.
	user    string
	devices bool
	labels  map[string]string
}

// metaOfLabels reads a container's labels.
func metaOfLabels(id, name string, labels map[string]string) meta {
	return meta{
		id: id, name: name, labels: labels,
		control: labels[labelControl], user: labels[labelUser], devices: labels[labelDevices] != "",
	}
}

// New returns a backend over the engine that cfg names. The engine need not be
// up: calls say runtime.ErrUnavailable until it is.
func New(cfg Config) (*Backend, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	api, err := dockerapi.New(cfg.Host)
	if err != nil {
		return nil, err
	}
	return newBackend(cfg, api)
}

// newBackend is New with another way to the engine.
func newBackend(cfg Config, api dockerapi.API) (*Backend, error) {
	bundle := ""
	if cfg.ContainerCA != "" {
		var err error
		if bundle, err = writeBundle(cfg.StateDir, cfg.ContainerCA); err != nil {
			return nil, err
		}
	}
	return &Backend{
		cfg: cfg, api: api, host: host.New(), bundle: bundle,
		images: newImages(api, cfg.DockerConfig),
		nets:   &networks{api: api, labels: cfg.Labels, have: map[string]bool{}},
		starts: make(chan struct{}, cfg.MaxStarts),
		metas:  map[string]meta{}, gone: map[string]time.Time{}, groups: map[string]group{},
		watchers: map[*watcher]struct{}{}, naming: map[string]*naming{},
	}, nil
}

// Close frees what the backend holds on this machine.
func (b *Backend) Close() error { return errors.Join(b.host.Close(), b.api.Close()) }

// Name is "docker".
func (b *Backend) Name() string { return Name }

// reach returns what is known of the engine, and asks where that is nothing.
func (b *Backend) reach(ctx context.Context) (*engine, error) {
	b.mu.Lock()
	e := b.engine
	b.mu.Unlock()
	if e != nil {
		return e, nil
	}
	v, err := b.api.Connect(ctx)
	if err != nil {
		return nil, b.engineError("reach the engine", err)
	}
	info, err := b.api.Info(ctx)
	if err != nil {
		return nil, b.engineError("reach the engine", err)
	}
	e = &engine{info: info, api: v.API, limits: readEngineLimits()}
	e.gpu, e.notes = probeGPU(info, v.API).choose()
	var files []string
	if b.bundle != "" {
		files = []string{b.bundle}
	}
	e.rules = b.cfg.rules(files, info.DockerRootDir)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.engine = e
	return e, nil
}

// lostEngine forgets what was learnt: the engine that comes back may be another.
func (b *Backend) lostEngine() {
	b.mu.Lock()
	b.engine = nil
	b.mu.Unlock()
	b.nets.forget()
}

// engineError classes an error of the engine once, for all callers.
func (b *Backend) engineError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case dockerapi.IsUnavailable(err):
		return fmt.Errorf("%s: %w: %s: %w", doing, runtime.ErrUnavailable, b.cfg.Host, err)
	case dockerapi.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", doing, runtime.ErrNotFound, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// Create makes the container, or adopts the one of that name and specification.
func (b *Backend) Create(ctx context.Context, spec runtime.ContainerSpec) (string, error) {
	if err := checkSpec(spec); err != nil {
		return "", err
	}
	doing := "create container " + spec.Name
	unlock, err := b.lockName(ctx, spec.Name)
	if err != nil {
		return "", err
	}
	defer unlock()
	e, err := b.reach(ctx)
	if err != nil {
		return "", err
	}
	network := networkNone
	if spec.Network != networkNone {
		if network, err = b.nets.ensure(ctx, spec.Namespace); err != nil {
			return "", b.engineError(doing, err)
		}
	}
	if err := host.Prepare(spec.PodDir, spec.Container, launch.Config{Container: spec.Name, Log: spec.Log}); err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	m := machine{
		cpus: e.info.NCPU, memory: e.info.MemTotal, gpu: e.gpu, hooked: e.info.DefaultRuntime == nvidiaRuntime,
		limits: e.limits,
	}
	c, err := b.build(spec, m, network, e.rules)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if err := e.rules.Check(c.host, c.config, c.grant); err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return b.createOrAdopt(ctx, spec, c)
}

// createOrAdopt: a name that another daemon, or a call of this one whose answer
// was lost, is just giving is taken before the container can be looked at.
func (b *Backend) createOrAdopt(ctx context.Context, spec runtime.ContainerSpec, c built) (string, error) {
	doing := "create container " + spec.Name
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		id, err := b.api.ContainerCreate(ctx, spec.Name, c.config, c.host)
		switch {
		case err == nil:
			b.remember(metaOfLabels(id, spec.Name, c.config.Labels))
			return id, nil
		case dockerapi.IsNotFound(err):
			return "", fmt.Errorf("%s: %w: %w", doing, runtime.ErrImageUnavailable, err)
		case !dockerapi.IsConflict(err):
			return "", b.engineError(doing, err)
		}
		id, err = b.adopt(ctx, spec, c.config.Labels)
		if !errors.Is(err, runtime.ErrNotFound) || pause > adoptPatience {
			return id, err
		}
		timer := time.NewTimer(pause) // The engine has no event for a name that is reserved.
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// naming makes calls for one name take turns.
type naming struct {
	turn  chan struct{}
	users int
}

// lockName waits for the name's turn.
func (b *Backend) lockName(ctx context.Context, name string) (unlock func(), err error) {
	b.mu.Lock()
	n := b.naming[name]
	if n == nil {
		n = &naming{turn: make(chan struct{}, 1)}
		b.naming[name] = n
	}
	n.users++
	b.mu.Unlock()
	leave := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(b.naming, name)
		}
	}
	select {
	case n.turn <- struct{}{}:
		return func() { <-n.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// adopt takes over the container that has the name already.
func (b *Backend) adopt(ctx context.Context, spec runtime.ContainerSpec, want map[string]string) (string, error) {
	doing := "adopt container " + spec.Name
	have, err := b.api.ContainerInspect(ctx, spec.Name)
	if err != nil {
		return "", b.engineError(doing, err)
	}
	for _, l := range []string{core.LabelStore, core.LabelPodUID, labelSpec, labelControl} {
		if have.Config.Labels[l] != want[l] {
			return "", fmt.Errorf("%s: %w: its label %s is %q and not %q", doing, runtime.ErrConflict, l, have.Config.Labels[l], want[l])
		}
	}
	b.remember(metaOf(have))
	return have.ID, nil
}

// remember keeps what a container's labels say.
func (b *Backend) remember(m meta) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.metas[m.id] = m
}

func (b *Backend) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.metas, id)
	delete(b.groups, id)
}

// meta finds what never changes of a container of this store.
func (b *Backend) meta(ctx context.Context, id string) (meta, error) {
	b.mu.Lock()
	m, ok := b.metas[id]
	b.mu.Unlock()
	if ok {
		return m, nil
	}
	c, err := b.api.ContainerInspect(ctx, id)
	if err != nil {
		return meta{}, b.engineError("find container "+short(id), err)
	}
	m = metaOf(c)
	if m.labels[core.LabelStore] != b.cfg.StoreID {
		return meta{}, fmt.Errorf("find container %s: %w in this store", short(id), runtime.ErrNotFound)
	}
	b.remember(m)
	return m, nil
}

// short is an id as the docker command shows it.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
