package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// locksFolder is where in the state folder spareLocks locks are kept ready.
const (
	locksFolder = "locks"
	spareLocks  = 8
)

// Backend runs containers as processes. Make one with New.
type Backend struct {
	cfg    Config
	host   *host.Host
	feed   host.Feed[runtime.Container]
	cancel context.CancelFunc // ends the followers
	ctx    context.Context    //nolint:containedctx // The life of the followers, which outlive each call.

	probe  func() isolation // once
	masked func() []string  // host folders that no container sees; once
	builds singleflight.Group

	keepers pool
	ledger  *ledger
	locks   *host.Spares

	mu         sync.Mutex
	containers map[string]*container
	pythons    map[string]interpreter // by the path asked for
	groups     *groups                // once they were found
	followers  sync.WaitGroup
}

var _ runtime.Backend = (*Backend)(nil)

// New opens the backend on a state folder and takes up what an earlier one left
// there. Close it to let go; containers go on.
func New(cfg Config) (*Backend, error) {
	cfg, err := cfg.clean()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Backend{
		cfg: cfg, host: host.New(), ctx: ctx, cancel: cancel,
		containers: map[string]*container{}, pythons: map[string]interpreter{},
	}
	b.locks = host.NewSpares(filepath.Join(cfg.StateDir, locksFolder), spareLocks, host.MakeLock)
	b.probe = sync.OnceValue(b.findIsolation)
	b.masked = sync.OnceValue(b.findMasked)
	if err := b.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("process runtime: %w", err), b.Close())
	}
	return b, nil
}

// Close stops following. Containers run on, and a Backend to come finds them.
func (b *Backend) Close() error {
	b.cancel()
	b.keepers.close()
	err := b.host.Close()
	b.locks.Close()
	b.followers.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.groups != nil {
		b.groups.leave()
	}
	return err
}

// Name is "process".
func (b *Backend) Name() string { return "process" }

// Capabilities says what was found to work on this machine.
func (b *Backend) Capabilities(context.Context) (runtime.Capabilities, error) {
	iso := b.probe()
	return runtime.Capabilities{
		Isolation: iso.String(),
		Limits:    iso.groups != nil,
		Mounts:    iso.level == LevelNamespaces,
		GPU:       "env",
		Notes:     iso.notes,
	}, nil
}

// Inventory counts this machine's processors and memory, as far as this process
// may use them.
func (b *Backend) Inventory(context.Context) (runtime.Inventory, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return runtime.Inventory{}, fmt.Errorf("read inventory: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				break
			}
			return runtime.Inventory{CPUMilli: int64(goruntime.NumCPU()) * 1000, MemoryBytes: kb << 10}, nil
		}
	}
	return runtime.Inventory{}, errors.New("read inventory: /proc/meminfo does not tell the memory")
}

// EnsureVolume makes STATE/volumes/<namespace>/<name>, open to any user within
// a container; its parent is closed to everybody else.
func (b *Backend) EnsureVolume(_ context.Context, namespace, name string) (string, error) {
	for _, part := range []string{namespace, name} {
		if !plainName(part) {
			return "", fmt.Errorf("make volume %s/%s: %q is not a name", namespace, name, part)
		}
	}
	dir := filepath.Join(b.cfg.StateDir, "volumes", namespace, name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil { // Reached only through a closed parent.
		return "", fmt.Errorf("make volume: %w", err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil { // As above.
		if errors.Is(err, os.ErrExist) {
			return dir, nil
		}
		return "", fmt.Errorf("make volume: %w", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // Whatever the umask.
		return "", fmt.Errorf("make volume: %w", err)
	}
	return dir, nil
}

// RemoveVolume removes such a folder. Containers run as this process's user, or
// this process is root, so it may.
func (b *Backend) RemoveVolume(_ context.Context, namespace, name string) error {
	for _, part := range []string{namespace, name} {
		if !plainName(part) {
			return fmt.Errorf("remove volume %s/%s: %q is not a name", namespace, name, part)
		}
	}
	if err := os.RemoveAll(filepath.Join(b.cfg.StateDir, "volumes", namespace, name)); err != nil {
		return fmt.Errorf("remove volume %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Dial connects to a port on this machine's loopback: containers share its network.
func (b *Backend) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	c, err := b.find(id)
	if err != nil {
		return nil, err
	}
	if c.spec.Network == "none" {
		return nil, fmt.Errorf("dial %s: it has no network: %w", id, runtime.ErrNotSupported)
	}
	if s := c.now().State; s != runtime.StateRunning {
		return nil, fmt.Errorf("dial %s: it is %s", id, s)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", id, err)
	}
	return conn, nil
}

// plainName says whether a name is one element of a path and not a hidden one.
func plainName(name string) bool {
	return name != "" && len(name) <= 200 && name[0] != '.' && !strings.ContainsAny(name, "/\x00")
}
