package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
	"github.com/skiff-ml/skiff/runtime/docker/policy"
)

// mountPoint is one line of a mountinfo file, as far as it says what is shown.
type mountPoint struct {
	device string // major:minor
	root   string // the folder of that file system which is shown
	at     string // where
}

// verifyMounts makes sure that a started container shows what was checked: the
// engine opens a source by its path, and whoever may write in a volume may have
// put a link there in between. Nothing of the user runs yet, since the launcher
// has no command; what is wrong now is ended before it has seen anything.
//
// A daemon that is not root cannot read another user's mounts. Then whoever can
// swap paths on this machine is the daemon's own user.
func (b *Backend) verifyMounts(ctx context.Context, c dockerapi.Inspect) error {
	var sources []string
	for _, m := range c.HostConfig.Mounts {
		if m.Type == dockerapi.MountBind && !strings.HasPrefix(m.Target, insideDir+"/") {
			sources = append(sources, m.Source)
		}
	}
	if len(sources) == 0 || os.Geteuid() != 0 {
		return nil
	}
	now, err := b.api.ContainerInspect(ctx, c.ID)
	if err != nil {
		return b.engineError("verify mounts of container "+c.Name, err)
	}
	if !now.State.Running || now.State.Pid == 0 {
		return nil // it ended by itself, and that is reported
	}
	proc := "/proc/" + strconv.Itoa(now.State.Pid)
	if group, err := os.ReadFile(proc + "/cgroup"); err != nil || !strings.Contains(string(group), c.ID) {
		// It ended this instant, or the engine runs in a machine of its own and
		// counts its processes alone: then its paths are not ours either.
		return nil //nolint:nilerr // See above.
	}
	inside, err := readMounts(proc + "/mountinfo")
	if errors.Is(err, os.ErrNotExist) {
		return nil // it ended this instant
	}
	var own []mountPoint
	if err == nil {
		own, err = readMounts("/proc/self/mountinfo")
	}
	if err != nil {
		return fmt.Errorf("verify mounts of container %s: %w", c.Name, err)
	}
	missing := firstMissing(sources, own, inside)
	if missing == "" {
		return nil
	}
	if err := b.api.ContainerKill(ctx, c.ID, "SIGKILL"); err != nil && !dockerapi.IsNotFound(err) && !dockerapi.IsConflict(err) {
		b.cfg.Logger.Error("cannot kill a container that shows what it must not", "container", c.Name, "error", err)
	}
	return fmt.Errorf("start container %s: %w: %w: %s was replaced after it had been checked", c.Name, runtime.ErrPolicy, policy.ErrEscapes, missing)
}

// firstMissing returns a source that is not among what the container shows,
// each shown folder counted once.
func firstMissing(sources []string, own, inside []mountPoint) string {
	shown := map[string]int{}
	for _, m := range inside {
		shown[m.device+" "+m.root]++
	}
	for _, s := range sources {
		want, ok := locate(s, own)
		key := want.device + " " + want.root
		if !ok || shown[key] == 0 {
			return s
		}
		shown[key]--
	}
	return ""
}

// locate says of which file system a path shows which folder. Of mounts one
// over the other, the last is seen.
func locate(path string, own []mountPoint) (mountPoint, bool) {
	best, found := mountPoint{}, false
	for _, m := range own {
		if m.at == path || m.at == "/" || strings.HasPrefix(path, m.at+"/") {
			if !found || len(m.at) >= len(best.at) {
				best, found = m, true
			}
		}
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(path, best.at), "/")
	best.root = filepath.Join(best.root, rel)
	return best, found
}

// readMounts reads a mountinfo file (proc(5)).
func readMounts(path string) ([]mountPoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mountPoint
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		list = append(list, mountPoint{device: fields[2], root: unescape(fields[3]), at: unescape(fields[4])})
	}
	return list, lines.Err()
}

// unescape reads the octal codes that stand for white space in mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
