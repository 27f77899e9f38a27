package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/skiff-ml/skiff/plugins/proto/inventory"
	"github.com/skiff-ml/skiff/runtime/device"
)

// HelperName is the inventory helper's file name; it lies beside skiff's own.
const HelperName = "skiff-nvml"

// Deadlines and pauses, where Config has none.
const (
	// DefaultStartTimeout is for the program to load and shake hands.
	DefaultStartTimeout = 10 * time.Second
	// DefaultCallTimeout is for one call: NVML answers in milliseconds.
	DefaultCallTimeout = 10 * time.Second
	// DefaultListTimeout is for the full list: without persistence mode the
	// driver first wakes every device, for seconds each.
	DefaultListTimeout = 30 * time.Second
	// DefaultBeatTimeout is the silence that counts as a hang; beats come every
	// two seconds.
	DefaultBeatTimeout = 10 * time.Second
	// DefaultKillWait is how long a killed helper may take to go. One that takes
	// longer is held by the kernel.
	DefaultKillWait = 2 * time.Second
	// DefaultStable is a life after which earlier failures are forgotten.
	DefaultStable = time.Minute
	// DefaultSuspectFor is how long a device that reported a passing fault gets
	// no new work.
	DefaultSuspectFor = 10 * time.Minute
)

// Config says which helper and how patient to be. The zero value of each field
// but Path is its default.
type Config struct {
	// Path is the helper; HelperBeside finds it. Empty, or a file that does not
	// exist, means that there is none.
	Path   string
	Logger *slog.Logger

	StartTimeout, CallTimeout, ListTimeout, BeatTimeout, KillWait time.Duration
	Stable, SuspectFor                                            time.Duration
	// Quick are the pauses before the first restarts in a row, Slow those after
	// them; the last one repeats. Default: 250 ms, 500 ms, 1 s; then 1, 2, 5,
	// 10 minutes.
	Quick, Slow []time.Duration
	// Root is the machine's file system, for what pure Go can read; default "/".
	Root fs.FS
	// SMI is nvidia-smi's path; default: where PATH has it. "none" leaves it out.
	SMI string
}

// HelperBeside is the helper's path beside the program that runs now.
func HelperBeside() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the inventory helper: %w", err)
	}
	if resolved, err := filepath.EvalSymlinks(self); err == nil {
		self = resolved
	}
	return filepath.Join(filepath.Dir(self), HelperName), nil
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.StartTimeout, DefaultStartTimeout}, {&c.CallTimeout, DefaultCallTimeout}, {&c.ListTimeout, DefaultListTimeout},
		{&c.BeatTimeout, DefaultBeatTimeout}, {&c.KillWait, DefaultKillWait}, {&c.Stable, DefaultStable}, {&c.SuspectFor, DefaultSuspectFor},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Quick == nil {
		c.Quick = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second}
	}
	if c.Slow == nil {
		c.Slow = []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Root == nil {
		c.Root = os.DirFS("/")
	}
	if c.SMI == "" {
		c.SMI = "none"
		if path, err := exec.LookPath("nvidia-smi"); err == nil {
			c.SMI = path
		}
	}
	return c
}

// HelperState is how the helper fares.
type HelperState string

// The states. Missing: there is none. Refused: it is not the file that it was
// when skiff started, or nobody should run it. Held: it was killed and the
// kernel has not let it go; no other is started beside it.
const (
	HelperMissing  HelperState = "missing"
	HelperStarting HelperState = "starting"
	HelperRunning  HelperState = "running"
	HelperFailed   HelperState = "failed"
	HelperRefused  HelperState = "refused"
	HelperHeld     HelperState = "held"
	HelperStopped  HelperState = "stopped"
)

// Status is the helper's state for doctor.
type Status struct {
	State HelperState `json:"state"`
	Path  string      `json:"path,omitempty"`
	// PID is of the running helper, 0 where none runs.
	PID int `json:"pid,omitempty"`
	// Starts counts the helper's lives since skiff started.
	Starts int `json:"starts"`
	// Err is the last failure, as a sentence.
	Err string `json:"error,omitempty"`
	// Helper is what it calls itself; Missing the driver's calls that it lacks.
	Helper  string   `json:"helper,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// Supervisor is the inventory of this machine's real devices. Run keeps it up to
// date; the other methods are safe for concurrent use at any time.
type Supervisor struct {
	cfg Config
	// sum is the helper's, taken when skiff started; nil where there is none.
	sum []byte

	mu     sync.Mutex
	status Status
	// life is of the running helper, nil where none runs.
	life *life
	// current is what Inventory says, once ready is closed; changed is closed and
	// replaced with each change of it.
	current device.Inventory
	ready   chan struct{}
	changed chan struct{}

	// known is Run's alone.
	known known
}

var (
	_ device.Source      = (*Supervisor)(nil)
	_ device.UsageReader = (*Supervisor)(nil)
)

// NewInventory takes the helper's checksum and starts nothing. A helper that
// does not exist is no error; one that cannot be read is.
func NewInventory(cfg Config) (*Supervisor, error) {
	s := &Supervisor{cfg: cfg.withDefaults(), ready: make(chan struct{}), changed: make(chan struct{})}
	s.status = Status{State: HelperMissing, Path: cfg.Path}
	if cfg.Path == "" {
		return s, nil
	}
	f, err := os.Open(cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the inventory helper: %w", err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return nil, fmt.Errorf("read the inventory helper %s: %w", cfg.Path, err)
	}
	s.sum, s.status.State = hash.Sum(nil), HelperStarting
	return s, nil
}

// Status says how the helper fares.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Inventory is the newest known one. It waits only for the very first, which
// Run learns within the start's and the list's deadlines.
func (s *Supervisor) Inventory(ctx context.Context) (device.Inventory, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return device.Inventory{}, fmt.Errorf("wait for the first look at the devices: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Clone(), nil
}

// Watch calls fn with the inventory and with each that follows.
func (s *Supervisor) Watch(ctx context.Context, fn func(device.Inventory)) error {
	last, err := s.Inventory(ctx)
	if err != nil {
		return context.Cause(ctx)
	}
	fn(last.Clone())
	for {
		s.mu.Lock()
		now, changed := s.current.Clone(), s.changed
		s.mu.Unlock()
		if !now.Equal(last) {
			last = now
			fn(now.Clone())
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Usage asks the helper what the devices do. Without one nobody can tell: the
// answer is empty then, and no error.
func (s *Supervisor) Usage(ctx context.Context) ([]device.Usage, []device.Process, error) {
	s.mu.Lock()
	l := s.life
	s.mu.Unlock()
	if l == nil {
		return nil, nil, nil
	}
	var answer *inventory.UsageResponse
	err := l.call(ctx, s.cfg.CallTimeout, func(ctx context.Context) (err error) {
		answer, err = l.client.Usage(ctx, &inventory.UsageRequest{})
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the use of the GPUs: %w", err)
	}
	usage, processes := usageOf(answer)
	return usage, processes, nil
}

// publish makes v the current inventory and wakes whoever watches.
func (s *Supervisor) publish(v device.Inventory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ready:
		if s.current.Equal(v) {
			return
		}
	default:
		close(s.ready)
	}
	s.current = v
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Supervisor) setStatus(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}
