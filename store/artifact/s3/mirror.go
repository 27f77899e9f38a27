package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// DefaultCacheBytes bounds the copies on this machine of what a bucket has, too:
// a few models, on a disk that has other work.
const DefaultCacheBytes = 50 << 30

// Config is what a Mirror is made of. Repository and Store are required.
type Config struct {
	Repository *artifact.Repository
	// Store has the namespaces' config maps and secrets.
	Store store.Interface
	// Owner is by whom objects in buckets are told to be this installation's; where
	// it is empty, none are, and nothing is removed from a bucket.
	Owner string
	// Environment is what "fromEnv: true" means; nil refuses it.
	Environment *Credentials
	// CacheBytes bounds what is kept here although a bucket has it; 0 means
	// DefaultCacheBytes.
	CacheBytes int64
	// Reserve is how many bytes are to stay free on the disk; 0 means what Reserve
	// says of it.
	Reserve int64
	// Reach is how far artifacts are fetched that have an http or https address.
	// Where it is not nowhere, buckets of gs:// that the namespace says nothing of
	// are read as the public reads them.
	Reach address.Reach
	// InUse tells which artifacts steps have before them; nil means none.
	InUse func(ctx context.Context) (map[Key]bool, error)
	// Logger discards where it is nil.
	Logger *slog.Logger
}

// Key names an artifact's place: a namespace and a URI.
type Key struct{ Namespace, URI string }

// Mirror is a repository that also keeps artifacts in object stores, where the
// namespace's config map says so. All other methods are the repository's own.
type Mirror struct {
	*artifact.Repository
	cfg Config
	log *slog.Logger
	// google is where gs:// is by default; elsewhere in tests.
	google Place

	mu      sync.Mutex
	clients map[clientKey]*Client
	busy    map[Key]chan struct{} // what is being fetched or delivered
	held    map[Key]int
	records records
	parsed  map[string]parsed // by namespace
}

type clientKey struct {
	endpoint, region  string
	secure, pathStyle bool
	retries           int
	keys              Credentials
}

// clientsKept bounds the clients that are kept with their connections.
const clientsKept = 32

// NewMirror takes over what an earlier one knew of the repository. Close it; the
// repository stays open.
func NewMirror(cfg Config) (*Mirror, error) {
	if cfg.Repository == nil || cfg.Store == nil {
		return nil, errors.New("s3: Repository and Store are required")
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = DefaultCacheBytes
	}
	m := &Mirror{Repository: cfg.Repository, cfg: cfg, log: cfg.Logger,
		google:  Place{Scheme: "gs", Endpoint: google, Secure: true, Retries: defaultRetries, Anonymous: true},
		clients: map[clientKey]*Client{}, busy: map[Key]chan struct{}{}, held: map[Key]int{}, parsed: map[string]parsed{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	var err error
	m.records, err = openRecords(cfg.Repository.Path())
	return m, err
}

// Close lets go of connections and records.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.clients {
		c.Close()
	}
	return m.records.close()
}

// PipelineRoot is where a namespace's runs keep their outputs unless they say
// otherwise; empty where the namespace does not say.
func (m *Mirror) PipelineRoot(ctx context.Context, namespace string) (string, error) {
	s, err := m.settings(ctx, namespace)
	if err != nil {
		return "", err
	}
	return s.PipelineRoot, nil
}

// Endpoint is the object store, or the host of an http or https address, that a
// URI's contents are kept in; false where that is this machine, or nobody may ask.
func (m *Mirror) Endpoint(ctx context.Context, namespace, uri string) (string, bool, error) {
	if at, err := m.Locate(namespace, uri); err == nil && at.Web() {
		return hostOf(uri), m.cfg.Reach != address.Nowhere, nil
	}
	p, kept, err := m.place(ctx, namespace, uri)
	return p.Endpoint, kept, err
}

// Deliver brings a committed artifact to its bucket and says what is there then;
// nil where no bucket keeps it, and of an empty folder, which no bucket can keep.
// It may be repeated, and goes on where it broke off. progress, where not nil, is
// told of bytes that are there, from several goroutines.
func (m *Mirror) Deliver(ctx context.Context, namespace, uri string, progress func(done, total int64)) (*skiff.Upload, error) {
	p, kept, err := m.place(ctx, namespace, uri)
	if err != nil || !kept {
		return nil, err
	}
	key := Key{namespace, uri}
	unlock, err := m.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := m.client(ctx, namespace, p)
	if err != nil {
		return nil, err
	}
	content, err := c.Upload(ctx, m.owner(namespace), p.Bucket, p.Key, &local{m.Repository, key}, progress)
	if err != nil {
		return nil, p.explain(err)
	}
	if content.Files == 0 {
		return nil, nil //nolint:nilnil // An empty folder is nowhere but here.
	}
	if err := m.records.put(key, record{Version: content.Version, Size: content.Size, Made: true}); err != nil {
		return nil, err
	}
	m.tidy(ctx)
	return &skiff.Upload{Endpoint: p.Endpoint, Version: content.Version}, nil
}

// Version looks up what a bucket has and identifies its contents: "sha256:…"
// where their hash is known, else something that changes when they do.
// artifact.ErrNotFound where nothing is there, or no bucket keeps the URI.
func (m *Mirror) Version(ctx context.Context, namespace, uri string) (string, error) {
	if at, err := m.Locate(namespace, uri); err == nil && at.Web() {
		return m.webVersion(ctx, uri)
	}
	p, kept, err := m.placeToRead(ctx, namespace, uri)
	if err != nil {
		return "", err
	}
	if !kept {
		return "", fmt.Errorf("artifact %s is in no object store: %w", uri, artifact.ErrNotFound)
	}
	c, err := m.client(ctx, namespace, p)
	if err != nil {
		return "", err
	}
	content, err := c.Look(ctx, p.Bucket, p.Key)
	if err != nil {
		return "", p.explain(err)
	}
	return content.Version, nil
}

// Fetch makes an artifact's contents be here as they are now: downloaded where
// they are not, or where the bucket has others meanwhile. What this machine made
// is not looked for anywhere else.
func (m *Mirror) Fetch(ctx context.Context, namespace, uri string) error {
	at, err := m.Locate(namespace, uri)
	if err != nil {
		return err
	}
	key := Key{namespace, uri}
	if at.Web() {
		return m.fetchWeb(ctx, key)
	}
	p, kept, err := m.placeToRead(ctx, namespace, uri)
	if err != nil {
		return err
	}
	if !kept {
		return m.here(ctx, namespace, uri)
	}
	unlock, err := m.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	here := m.Exists(namespace, uri)
	known, recorded := m.records.get(key)
	if here && (!recorded || known.Made) {
		m.records.touch(key)
		return nil
	}
	c, err := m.client(ctx, namespace, p)
	if err != nil {
		return err
	}
	// What changes while it is read is looked at again, not for ever.
	for range 3 {
		if err = m.refresh(ctx, key, c, p, here); !errors.Is(err, errChanged) {
			break
		}
	}
	if err != nil {
		return p.explain(err)
	}
	m.tidy(ctx)
	return nil
}

// refresh downloads what a bucket has unless it is here already.
func (m *Mirror) refresh(ctx context.Context, key Key, c *Client, p Place, here bool) error {
	content, err := c.Look(ctx, p.Bucket, p.Key)
	if err != nil {
		return err
	}
	if known, _ := m.records.get(key); here && known.Version == content.Version {
		m.records.touch(key)
		return nil
	}
	return m.download(ctx, key, c, content)
}

// here is Fetch where no bucket is known.
func (m *Mirror) here(ctx context.Context, namespace, uri string) error {
	err := m.Repository.Fetch(ctx, namespace, uri)
	at, _ := m.Locate(namespace, uri) // it was looked at
	if err == nil || at.Scheme == "minio" || !errors.Is(err, artifact.ErrNotFound) {
		return err
	}
	return fmt.Errorf("artifact %s is not on this machine, and namespace %s does not say how to get into bucket %q: "+
		"give it a config map %s with providers.%s (endpoint, and credentials.secretRef with the name of a secret): %w",
		uri, namespace, hostOf(uri), ConfigMapName, at.Scheme, ErrSettings)
}

// headroom is what a download leaves free, for logs and the store.
const headroom = 256 << 20

func (m *Mirror) download(ctx context.Context, key Key, c *Client, content *Content) error {
	if err := m.makeRoom(ctx, content.Size); err != nil {
		return err
	}
	in, err := m.Receive(key.Namespace, key.URI)
	if err != nil {
		return err
	}
	copied, err := m.copySame(ctx, key, content, in)
	if err == nil && !copied {
		err = c.Download(ctx, content, &receiving{in})
	}
	if err != nil {
		return errors.Join(err, in.Abort())
	}
	// Whoever comes after a crash between the two must not take the old contents
	// for these, nor these for something that was made here.
	if err := m.records.put(key, record{Size: content.Size}); err != nil {
		return errors.Join(err, in.Abort())
	}
	if err := in.Commit(ctx); err != nil {
		return err
	}
	return m.records.put(key, record{Version: content.Version, Size: content.Size})
}

// copySame takes the contents from another artifact that has the same hash, where
// the namespace has one here. Other namespaces' are not looked at: to know a hash
// is no right to the contents.
func (m *Mirror) copySame(ctx context.Context, key Key, content *Content, in *artifact.Incoming) (bool, error) {
	want, is := strings.CutPrefix(content.Version, artifact.DigestPrefix)
	same, found := m.records.same(key, content.Version)
	if !is || !found {
		return false, nil
	}
	from, err := m.Open(same.Namespace, same.URI, "")
	if err != nil {
		return false, nil //nolint:nilerr // It went meanwhile, or is nothing to copy: the bucket has it.
	}
	defer func() { _ = from.Close() }()
	to, err := in.Create("")
	if err != nil {
		return false, err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(to, sum), contextReader{ctx, from})
	if err = errors.Join(err, to.Close()); err != nil {
		return false, err
	}
	if hex.EncodeToString(sum.Sum(nil)) == want {
		return true, nil
	}
	m.log.Warn("a copy of an artifact is not what it was, it is fetched again", "namespace", same.Namespace, "uri", same.URI)
	return false, in.Drop()
}

func (m *Mirror) makeRoom(ctx context.Context, size int64) error {
	free, err := m.Room()
	if err != nil {
		return err
	}
	if free >= size+headroom {
		return nil
	}
	if err := m.trim(ctx, max(0, m.records.total()-(size+headroom-free))); err != nil {
		return err
	}
	if free, err = m.Room(); err == nil && free < size+headroom {
		err = fmt.Errorf("%w: %d MiB are to be downloaded and %s has %d MiB left: make room", errLocal, size>>20, m.Path(), free>>20)
	}
	return err
}

// local is an artifact of the repository as something to upload.
type local struct {
	r   *artifact.Repository
	key Key
}

func (l *local) Files(ctx context.Context) ([]artifact.Member, bool, error) {
	return l.r.Files(ctx, l.key.Namespace, l.key.URI)
}

func (l *local) Open(path string) (File, error) { return l.r.Open(l.key.Namespace, l.key.URI, path) }

// receiving is an artifact on its way in as something to download to.
type receiving struct{ in *artifact.Incoming }

func (r *receiving) Create(path string) (SinkFile, error) { return r.in.Create(path) }

// lock has one at a time fetch or deliver an artifact.
func (m *Mirror) lock(ctx context.Context, key Key) (unlock func(), err error) {
	for {
		m.mu.Lock()
		other := m.busy[key]
		if other == nil {
			mine := make(chan struct{})
			m.busy[key] = mine
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.busy, key)
				m.mu.Unlock()
				close(mine)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-other:
		}
	}
}
