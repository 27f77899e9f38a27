package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

// What is in a container's folder, where it has one.
const (
	spawnedFile  = "spawned.json"
	launcherFile = "launcher.log"
	tmpFolder    = "tmp"
	layerFolder  = "layer"
)

// container is one container of this backend.
type container struct {
	b       *Backend
	spec    runtime.ContainerSpec
	hash    string
	dir     string // STATE/process/<name>, with what is needed only sometimes
	control string

	life sync.Mutex // held by Start and Remove

	mu    sync.Mutex
	state runtime.Container
	pid   int // the launcher's, 0 where unknown
	// groups are its control group folders, its keeper's where it has one.
	groups []string
	shape  *launch.View    // what Create found, until Start; nil after a restart
	keeper *keeper         // nil for a launcher of its own, and after a restart
	begun  chan struct{}   // closed when started is set
	begins *launch.Started // of a keeper's container
	gone   bool            // removed
	ended  chan struct{}   // closed when the state is final
	talks  chan host.Talk  // to a follower that has not dialled; nil once it has one
}

// spawned is spawned.json: enough to know the process again after a restart,
// since process ids come back.
type spawned struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat
	Boot  string `json:"boot"`
}

func (b *Backend) newContainer(s saved) *container {
	return &container{
		b: b, spec: s.spec, hash: s.hash, groups: s.groups,
		dir:     filepath.Join(b.cfg.StateDir, "process", s.spec.Name),
		control: launch.ControlDir(s.spec.PodDir, s.spec.Container),
		state: runtime.Container{
			ID: s.spec.Name, Name: s.spec.Name, Labels: s.spec.Labels, State: runtime.StateCreated,
		},
		ended: make(chan struct{}), begun: make(chan struct{}),
	}
}

// hashOf identifies a spec, given in JSON.
func hashOf(spec []byte) string {
	sum := sha256.Sum256(spec)
	return hex.EncodeToString(sum[:])
}

// now is the container as it stands.
func (c *container) now() runtime.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// update changes the state and publishes it. States only go forward: what
// arrives late changes nothing.
func (c *container) update(change func(*runtime.Container)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if final(c.state.State) {
		return
	}
	before, held := c.state.State, c.state.Held != nil
	change(&c.state)
	if rank(c.state.State) < rank(before) {
		c.state.State = before
		return
	}
	if (c.state.State == before && held == (c.state.Held != nil)) || c.gone {
		return
	}
	c.b.feed.Publish(c.spec.Name, c.state)
	if final(c.state.State) {
		close(c.ended)
		if groups := c.groups; c.keeper == nil && len(groups) > 0 {
			// The launcher is in them for another instant.
			c.b.followers.Go(func() { removeGroups(groups) })
		}
	}
}

// cgroups are the container's control groups.
func (c *container) cgroups() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.groups
}

// begin takes note that the container's keeper runs the command.
func (c *container) begin(s *launch.Started) {
	c.mu.Lock()
	again := c.begins != nil
	c.begins = s
	c.mu.Unlock()
	if !again {
		close(c.begun)
	}
	c.observe(host.Status{Phase: launch.PhaseRunning, Started: s})
}

func final(s runtime.State) bool { return s == runtime.StateExited || s == runtime.StateLost }

func rank(s runtime.State) int {
	switch s {
	case runtime.StateCreated:
		return 0
	case runtime.StateWaiting:
		return 1
	case runtime.StateRunning:
		return 2
	}
	return 3
}

// observe takes over what the launcher's folder or the launcher says.
func (c *container) observe(s host.Status) {
	if s.PID != 0 {
		c.mu.Lock()
		c.pid = s.PID
		if len(c.groups) == 0 && c.keeper == nil {
			c.groups = groupsOf(s.PID)
		}
		c.mu.Unlock()
	}
	c.update(func(r *runtime.Container) {
		if s.Started != nil {
			r.StartedAt = s.Started.At
		}
		switch {
		case s.Lost:
			r.State, r.Reason, r.Message = runtime.StateLost, "LauncherLost", s.Message
		case s.Exit != nil:
			r.State, r.Exit, r.Held = runtime.StateExited, s.Exit, nil
			r.StartedAt = s.Exit.StartedAt
			r.Reason, r.Message = s.Exit.Reason, s.Exit.Message
			r.OOMKilled = s.Exit.Reason == launch.ReasonOOMKilled
		case s.Phase == launch.PhaseRunning:
			r.State = runtime.StateRunning
			if s.Held != nil {
				r.Held = s.Held
			}
		case s.Phase == launch.PhaseWaiting:
			r.State = runtime.StateWaiting
		}
	})
}

// lose ends a container whose launcher never came up.
func (c *container) lose(message string) {
	c.observe(host.Status{Phase: launch.PhaseExited, Lost: true, Message: message})
}

// attend keeps the state of a container that this Backend has started up to
// date: gone is closed when its launcher's process has ended. The first Launch
// brings the connection on which the rest is heard.
func (c *container) attend(gone <-chan struct{}) {
	c.mu.Lock()
	c.talks = make(chan host.Talk, 1)
	talks := c.talks
	c.mu.Unlock()
	c.b.followers.Go(func() {
		select {
		case t := <-talks:
			c.follow(gone, t)
			return
		case <-gone:
		case <-c.b.ctx.Done():
		}
		c.mu.Lock()
		c.talks = nil
		c.mu.Unlock()
		select {
		case t := <-talks:
			c.follow(gone, t)
		default:
			c.follow(gone, host.Talk{})
		}
	})
}

// handOver gives a conversation to the follower that waits for one.
func (c *container) handOver(t host.Talk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.talks == nil {
		t.Close()
		return
	}
	c.talks <- t
	c.talks = nil
}

// follow keeps the state up to date until it is final. gone is closed when the
// launcher's process has ended, where somebody can tell.
func (c *container) follow(gone <-chan struct{}, t host.Talk) {
	c.b.followers.Go(func() {
		ctx, cancel := context.WithCancel(c.b.ctx)
		defer cancel()
		if gone != nil {
			c.b.followers.Go(func() {
				select {
				case <-gone:
				case <-ctx.Done():
					return
				}
				status, begun, err := host.ReadStatus(c.control)
				switch {
				case err != nil:
					c.lose(err.Error())
				case !begun:
					c.lose("the launcher did not come up: " + c.complaint())
				case status.Final():
					c.observe(status)
				default:
					return // the folder tells in a moment
				}
				cancel()
			})
		}
		err := c.b.host.FollowTalk(ctx, c.control, t, c.observe)
		if err != nil && ctx.Err() == nil && !errors.Is(err, host.ErrClosed) {
			c.b.cfg.Logger.Warn("cannot follow a launcher", "container", c.spec.Name, "error", err)
			c.lose("its control folder cannot be read: " + err.Error())
		}
	})
}

// complaint is what the launcher wrote to its own log.
func (c *container) complaint() string {
	c.mu.Lock()
	k := c.keeper
	c.mu.Unlock()
	if k != nil {
		return said(k.log)
	}
	f, err := host.Open(c.dir, launcherFile)
	if err != nil {
		return "it left no message"
	}
	defer f.Close()
	buf := make([]byte, 2<<10)
	n, _ := f.Read(buf) // nothing is as good as an error here
	if text := strings.TrimSpace(string(buf[:n])); text != "" {
		return text
	}
	return "it left no message"
}

// load takes up the containers that are on disk.
func (b *Backend) load() error {
	b.sweepEnvironments()
	b.sweepKept()
	root := filepath.Join(b.cfg.StateDir, "process")
	all, err := []saved(nil), error(nil)
	b.ledger, all, err = openLedger(root, func(err error) {
		b.cfg.Logger.Warn("a container cannot be made out; it is left alone", "error", err)
	})
	if err != nil {
		return err
	}
	known := map[string]bool{ledgerFile: true}
	for _, s := range all {
		known[s.spec.Name] = true
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !known[e.Name()] {
			b.discard(filepath.Join(root, e.Name())) // half made, or half removed
		}
	}
	for _, s := range all {
		b.adopt(b.newContainer(s))
	}
	return nil
}

// adopt finds out where a container stands that an earlier Backend made.
func (b *Backend) adopt(c *container) {
	b.mu.Lock()
	b.containers[c.spec.Name] = c
	b.mu.Unlock()
	b.feed.Publish(c.spec.Name, c.now())
	status, begun, err := host.ReadStatus(c.control)
	if err != nil {
		c.lose("its control folder cannot be read: " + err.Error())
		return
	}
	if begun && !status.Final() {
		// It may be on its way, or only seem so: a lock that the daemon before us
		// took in its name lives on in whatever that daemon was forking.
		wait, cancel := context.WithTimeout(b.ctx, probeTimeout)
		if conn, err := b.host.Connect(wait, c.control); err == nil {
			conn.Close()
		} else if now, still, err := host.ReadStatus(c.control); err == nil {
			status, begun = now, still
		}
		cancel()
	}
	if begun && status.Lost {
		if unborn, err := host.Retract(c.control); err == nil && unborn {
			return // created, and its keeper never heard of it
		}
	}
	if begun {
		c.observe(status)
		if !status.Final() {
			c.follow(nil, host.Talk{})
		}
		return
	}
	proc, err := readSpawned(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return // created, and no launcher yet
	}
	if err != nil || !proc.alive() {
		c.lose("the launcher did not come up: " + c.complaint())
		return
	}
	// It is on its way.
	c.observe(host.Status{Phase: launch.PhaseWaiting, PID: proc.PID})
	gone := make(chan struct{})
	b.followers.Go(func() {
		if awaitExit(b.ctx, proc) {
			close(gone)
		}
	})
	c.follow(gone, host.Talk{})
}

func readSpawned(dir string) (spawned, error) {
	var s spawned
	data, err := os.ReadFile(filepath.Join(dir, spawnedFile))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

// alive says whether that very process lives.
func (s spawned) alive() bool {
	now, err := describe(s.PID)
	return err == nil && now == s
}

// describe identifies a process that lives.
func describe(pid int) (spawned, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return spawned{}, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return spawned{}, fmt.Errorf("process %d has ended", pid)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return spawned{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return spawned{}, err
	}
	return spawned{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// find is the container of an id.
func (b *Backend) find(id string) (*container, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.containers[id]
	if !ok {
		return nil, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return c, nil
}

// writeFile replaces a file whole.
func writeFile(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
