package process

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

const (
	// keeperRest is how long a keeper without a container is kept.
	keeperRest = 30 * time.Second
	// keeperLives is how many containers one serves at most, so that nothing in
	// it or in its control groups grows for ever.
	keeperLives = 1000
	// keeperTries is how many keepers in a row may fail to come up before
	// containers get a launcher each.
	keeperTries = 3
)

// keeper is a launcher that serves one container after another
// (launch.KeepArg): what a launcher costs to start, and the part of the view
// that is always the same, are paid once.
type keeper struct {
	b      *Backend
	class  keeperClass
	conn   *host.Conn
	pid    int
	groups []string
	limits runtime.Resources // in force in groups
	dir    string            // STATE/kept/<name>: temporary files of containers
	log    *os.File          // what the launcher has to say, in memory
	gone   chan struct{}     // closed when its process has ended

	// Guarded by the pool.
	serves *container
	lives  int
	rest   *time.Timer // while it has no container
}

// keeperClass is what containers must have in common to follow each other in a
// keeper: a profile's own do not meet another profile's.
type keeperClass struct {
	namespace string
	cpu       bool // with a limit: the group of that controller changes how time is shared
}

// pool holds the keepers.
type pool struct {
	mu     sync.Mutex
	all    map[*keeper]struct{}
	idle   []*keeper // the last one rested least
	failed int       // in a row
	closed bool
}

// keepable says whether a keeper can serve the container: its namespaces are
// the usual ones, it sees no device of its own, and its shared memory is plain.
func (c *container) keepable(iso isolation) bool {
	if iso.level != LevelNamespaces || iso.user || c.spec.Network != "" || (len(c.spec.GPUs) > 0 && !c.spec.FakeGPUs) {
		return false
	}
	for _, m := range c.spec.Mounts {
		if filepath.Clean(m.Path) == "/dev/shm" {
			return false // a keeper's way to the host lies there
		}
	}
	c.b.keepers.mu.Lock()
	defer c.b.keepers.mu.Unlock()
	return c.b.keepers.failed < keeperTries
}

// startKept gives the container to a keeper; false where none can be had.
func (c *container) startKept(iso isolation) (bool, error) {
	view, err := c.shape, error(nil)
	if c.shape = nil; view == nil {
		if view, err = c.view(iso); err != nil {
			return false, err
		}
	}
	control := c.control
	if !strings.HasPrefix(control, c.b.cfg.StateDir+"/") {
		if control, err = filepath.EvalSymlinks(control); err != nil {
			return false, err
		}
	}
	assign := launch.Assign{
		Control: control, Env: c.environment(iso), Dir: "/tmp",
		Config: launch.Config{
			Version: launch.Version, Container: c.spec.Name, Log: c.spec.Log,
			DaemonUID: os.Geteuid(), DaemonGID: os.Getegid(),
			View: &launch.View{Mounts: view.Mounts, ShmBytes: view.ShmBytes, Hostname: view.Hostname},
		},
	}
	class := keeperClass{namespace: c.spec.Namespace, cpu: c.spec.Resources.CPUMilli > 0}
	var lock *os.File
	for {
		k, fresh := c.b.keepers.take(class), false
		if k == nil {
			if k, err = c.b.newKeeper(class, iso, *view); err != nil {
				c.b.keepers.note(false)
				c.b.cfg.Logger.Warn("a launcher that is kept does not come up; the container gets one of its own", "error", err)
				return false, nil
			}
			c.b.keepers.note(true)
			fresh = true
		}
		if lock == nil {
			if lock, err = host.TakeLock(c.control, c.b.locks); err != nil {
				k.conn.Close()
				return false, err
			}
			defer lock.Close() // the keeper has it by then
		}
		err := k.serve(c, assign, lock)
		if err == nil {
			return true, nil
		}
		k.conn.Close()
		if fresh {
			return false, err
		}
	}
}

// take finds an idle keeper.
func (p *pool) take(class keeperClass) *keeper {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, k := range slices.Backward(p.idle) {
		if k.class == class {
			p.idle = slices.Delete(p.idle, i, i+1)
			k.rest.Stop()
			return k
		}
	}
	return nil
}

// put takes back a keeper that has become idle. More than one for each
// processor are not wanted.
func (p *pool) put(k *keeper) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || k.lives >= keeperLives {
		k.conn.Close()
		return
	}
	k.rest = time.AfterFunc(keeperRest, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.idle, k); i >= 0 {
			p.idle = slices.Delete(p.idle, i, i+1)
			k.conn.Close()
		}
	})
	p.idle = append(p.idle, k)
	if len(p.idle) > max(2, goruntime.NumCPU()) {
		oldest := p.idle[0]
		p.idle = p.idle[1:]
		oldest.rest.Stop()
		oldest.conn.Close()
	}
}

// note counts failures to come up.
func (p *pool) note(ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed++
	if ok {
		p.failed = 0
	}
}

// add registers a keeper; false where the pool has been closed.
func (p *pool) add(k *keeper) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.all == nil {
		p.all = map[*keeper]struct{}{}
	}
	p.all[k] = struct{}{}
	return true
}

// drop forgets a keeper and returns the container that it served.
func (p *pool) drop(k *keeper) *container {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, k)
	if i := slices.Index(p.idle, k); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		k.rest.Stop()
	}
	return k.serves
}

// close hangs up: those that serve finish what they serve, the others end now.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	all := p.all
	p.all, p.idle = nil, nil
	p.mu.Unlock()
	for k := range all {
		k.conn.Close()
	}
}

// newKeeper starts one and returns when it is ready.
func (b *Backend) newKeeper(class keeperClass, iso isolation, view launch.View) (*keeper, error) {
	k := &keeper{b: b, class: class, gone: make(chan struct{})}
	name := keptPrefix + strings.ToLower(rand.Text())
	k.dir = filepath.Join(b.cfg.StateDir, keptFolder, name)
	lock, err := makeKept(k.dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the launcher has it by then
	if iso.groups != nil {
		k.groups = iso.groups.folders(name, class.cpu)
		if err := makeGroups(k.groups, runtime.Resources{}); err != nil {
			k.clear()
			return nil, err
		}
	}
	if err := k.spawn(iso, lock); err != nil {
		k.clear()
		return nil, err
	}
	err = k.conn.Send(launch.Frame{Base: &launch.View{
		Root: view.Root, Masked: view.Masked, Cgroups: k.groups, Mounts: b.commonMounts(k.dir),
	}})
	if err == nil {
		err = k.ready()
	}
	if err != nil || !b.keepers.add(k) {
		k.conn.Close()
		<-k.gone
		k.clear()
		return nil, fmt.Errorf("%w: %s", errors.Join(err, b.ctx.Err()), said(k.log))
	}
	b.followers.Go(k.listen)
	return k, nil
}

// clear removes what the keeper had outside its process.
func (k *keeper) clear() {
	removeGroups(k.groups)
	if err := removeAll(k.dir); err != nil {
		k.b.cfg.Logger.Warn("temporary files cannot be removed", "folder", k.dir, "error", err)
	}
}

// keptFolder is where in the state folder keepers have their containers'
// temporary files.
const keptFolder = "kept"

// makeKept makes such a folder, open to any user within a container, and locks
// it: the lock lives as long as the keeper, whatever becomes of the daemon.
func makeKept(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = os.Chmod(dir, 0o777|os.ModeSticky)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	return f, nil
}

// sweepKept removes the folders of keepers that have ended.
func (b *Backend) sweepKept() {
	root := filepath.Join(b.cfg.StateDir, keptFolder)
	entries, err := os.ReadDir(root)
	if err != nil {
		return // nothing was ever there
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			b.discard(dir)
		}
		_ = f.Close() // whoever makes it anew has another name for it
	}
}

// spawn starts the process in its namespaces, with the lock of its folder.
func (k *keeper) spawn(iso isolation, lock *os.File) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	if k.conn, err = host.Adopt(ours); err != nil {
		return err
	}
	log, err := unix.MemfdCreate("launcher.log", unix.MFD_CLOEXEC)
	if err != nil {
		k.conn.Close()
		return os.NewSyscallError("memfd_create", err)
	}
	k.log = os.NewFile(uintptr(log), launcherFile)
	cmd := exec.Command(k.b.cfg.LauncherPath, launch.KeepArg) // Our own program.
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stderr = k.log
	cmd.ExtraFiles = []*os.File{theirs, lock} // launch.KeepFD, and one that is only held
	cmd.SysProcAttr = sysProcAttr(iso, "")
	if err := cmd.Start(); err != nil {
		k.conn.Close()
		_ = k.log.Close()
		return fmt.Errorf("start launcher: %w", err)
	}
	k.pid = cmd.Process.Pid
	// Not waited for by Close: what it serves may outlive us.
	go func() {
		_ = cmd.Wait() // how a container ended is in its exit record
		close(k.gone)
	}()
	return nil
}

// ready waits for the first Idle.
func (k *keeper) ready() error {
	silent := time.AfterFunc(probeTimeout, k.conn.Close)
	defer silent.Stop()
	f, err := k.conn.Next()
	if err == nil && f.Idle == nil {
		err = errors.New("it does not say that it is ready")
	}
	return err
}

// serve hands over a container, with its limits in force before anything of it runs.
func (k *keeper) serve(c *container, assign launch.Assign, lock *os.File) error {
	if len(k.groups) > 0 && k.limits != limitsOf(c.spec.Resources) {
		if err := changeGroups(k.groups, k.limits, limitsOf(c.spec.Resources)); err != nil {
			return err
		}
		k.limits = limitsOf(c.spec.Resources)
	}
	k.b.keepers.mu.Lock()
	k.serves = c
	k.lives++
	k.b.keepers.mu.Unlock()
	c.mu.Lock()
	c.keeper, c.pid, c.groups = k, k.pid, k.groups
	c.mu.Unlock()
	if err := k.conn.SendFiles(launch.Frame{Assign: &assign}, lock); err != nil {
		k.b.keepers.mu.Lock()
		k.serves = nil
		k.b.keepers.mu.Unlock()
		c.mu.Lock()
		c.keeper, c.pid, c.groups = nil, 0, nil
		c.mu.Unlock()
		return err
	}
	return nil
}

// listen hears the keeper until it hangs up.
func (k *keeper) listen() {
	for {
		f, err := k.conn.Next()
		if err != nil {
			break
		}
		c := k.container()
		switch {
		case f.Started != nil && c != nil:
			c.begin(f.Started)
		case f.Held != nil && c != nil:
			c.observe(host.Status{Phase: launch.PhaseRunning, Held: f.Held})
		case f.Exited != nil && c != nil:
			k.b.keepers.mu.Lock()
			k.serves = nil
			k.b.keepers.mu.Unlock()
			c.observe(host.Status{Phase: launch.PhaseExited, Exit: f.Exited})
		case f.Idle != nil:
			k.b.keepers.put(k)
		}
	}
	k.conn.Close()
	defer k.log.Close()
	c := k.b.keepers.drop(k)
	if c != nil && k.b.ctx.Err() != nil {
		return // it goes on, and a Backend to come finds it
	}
	<-k.gone
	k.clear()
	if c == nil {
		if text := said(k.log); text != "" {
			k.b.cfg.Logger.Debug("a kept launcher has ended", "message", text)
		}
		return
	}
	status, begun, err := host.ReadStatus(c.control)
	switch {
	case err != nil:
		c.lose(err.Error())
	case !begun:
		c.lose("the launcher did not come up: " + said(k.log))
	default:
		c.observe(status)
	}
}

func (k *keeper) container() *container {
	k.b.keepers.mu.Lock()
	defer k.b.keepers.mu.Unlock()
	return k.serves
}

// said is what a launcher wrote to its log, at most two kilobytes.
func said(log *os.File) string {
	buf := make([]byte, 2<<10)
	n, _ := log.ReadAt(buf, 0) // nothing is as good as an error here
	return strings.TrimSpace(string(buf[:n]))
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "daemon"), nil
}
