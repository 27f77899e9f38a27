package process

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// An environment is built in a folder of its own name, and counts only when a
// marker points to it:
//
//	STATE/envs/<key>.json        the marker (type prepared), placed by rename
//	STATE/envs/<key>-<suffix>/   the environment
//
// It cannot be built elsewhere and renamed, since its scripts name their
// interpreter by absolute path. A build that was cut short has no marker, and
// its folder is removed by the next start.

// pythonImage finds or makes the environment for a request.
func (b *Backend) pythonImage(ctx context.Context, req runtime.ImageRequest, rule Rule, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	py, err := b.python(ctx, req.Ref, rule)
	if err != nil {
		return runtime.Image{}, err
	}
	calls := req.Pip
	wanted, err := json.Marshal(calls)
	if err != nil {
		return runtime.Image{}, err
	}
	identity := digest("python", py.identity, py.Version, py.BasePrefix,
		strconv.FormatBool(b.cfg.SystemSitePackages), string(wanted), withoutSecrets(b.cfg.PipArgs))
	key := "python-" + strings.TrimPrefix(identity, "sha256:")[:24]
	p, err := b.environmentFor(ctx, key, func(ctx context.Context) (prepared, error) {
		return b.build(ctx, key, identity, py, calls, progress)
	})
	if err != nil {
		return runtime.Image{}, err
	}
	return runtime.Image{
		ID: key, Digest: digest(p.Identity, strings.Join(rule.Env, "\n")),
		Cmd: []string{"python3"}, PipSatisfied: len(calls) > 0,
		Env: append([]string{"PATH=" + filepath.Join(p.Env, "bin") + ":" + searchPath, "VIRTUAL_ENV=" + p.Env}, rule.Env...),
	}, nil
}

// environmentFor returns a finished environment, or builds it once however many
// ask. A build ends only when all of them have given up.
func (b *Backend) environmentFor(ctx context.Context, key string, build func(context.Context) (prepared, error)) (prepared, error) {
	for {
		if p, err := b.loadImage(key); err == nil {
			if _, err := os.Stat(filepath.Join(p.Env, "bin", "python3")); err == nil {
				return p, nil
			}
		}
		result := b.builds.DoChan(key, func() (any, error) { return build(ctx) })
		select {
		case <-ctx.Done():
			return prepared{}, context.Cause(ctx)
		case r := <-result:
			if r.Err == nil {
				return r.Val.(prepared), nil
			}
			// The one who built gave up; another's reason is not ours.
			if ctx.Err() == nil && errors.Is(r.Err, errGaveUp) {
				continue
			}
			return prepared{}, r.Err
		}
	}
}

// errGaveUp: whoever asked for a build does not wait for it any more.
var errGaveUp = errors.New("build was given up")

// build makes an environment and installs into it.
func (b *Backend) build(ctx context.Context, key, identity string, py interpreter, calls []core.PipCall, progress func(runtime.ImageProgress)) (prepared, error) {
	envs := filepath.Join(b.cfg.StateDir, "envs")
	dir := filepath.Join(envs, key+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	p, err := b.buildIn(ctx, dir, py, calls, progress)
	if err == nil {
		p.Identity = identity
		err = writeFile(filepath.Join(envs, key+".json"), p)
	}
	if err != nil {
		if err2 := removeAll(dir); err2 != nil {
			b.cfg.Logger.Warn("a half-made environment cannot be removed", "folder", dir, "error", err2)
		}
		if ctx.Err() != nil {
			err = errors.Join(errGaveUp, err)
		}
		return prepared{}, err
	}
	b.cfg.Logger.Info("environment made", "folder", dir, "python", p.Version, "calls", len(calls))
	return p, nil
}

func (b *Backend) buildIn(ctx context.Context, dir string, py interpreter, calls []core.PipCall, progress func(runtime.ImageProgress)) (prepared, error) {
	progress(runtime.ImageProgress{Status: "making a Python environment"})
	args := []string{"-m", "venv"}
	if b.cfg.SystemSitePackages {
		args = append(args, "--system-site-packages")
	}
	if err := b.tool(ctx, nil, py.Executable, append(args, dir)...); err != nil {
		return prepared{}, fmt.Errorf("make an environment with %s (Debian and Ubuntu need the package python3-venv): %w", py.Executable, err)
	}
	python := filepath.Join(dir, "bin", "python3")
	line := func(text string) { progress(runtime.ImageProgress{Status: text}) }
	for _, call := range calls {
		args := slices.Concat([]string{"-m", "pip", "install"}, b.cfg.PipArgs, call.Options, call.Packages)
		if err := b.tool(ctx, line, python, args...); err != nil {
			return prepared{}, fmt.Errorf("pip install %s: %w", strings.Join(call.Packages, " "), err)
		}
	}
	version, _, _ := strings.Cut(py.Version, " ")
	p := prepared{Env: dir, Python: py.Executable, Version: version, Installed: calls}
	for _, path := range []string{py.BasePrefix, filepath.Dir(py.Executable)} {
		if resolved, err := filepath.EvalSymlinks(path); err == nil && b.hidden(resolved) && !covered(p.Visible, resolved) {
			p.Visible = append(p.Visible, resolved)
		}
	}
	return p, nil
}

// covered says whether path lies in one of the folders.
func covered(dirs []string, path string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// tool runs a program of the build with the node's environment, hands its lines
// on, and returns the end of its output as the error. It dies with the daemon.
func (b *Backend) tool(ctx context.Context, line func(string), program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...) // The administrator's interpreter, or one made from it.
	cmd.Env = lastWins(append([]string{
		"PATH=" + searchPath, "HOME=" + b.cfg.StateDir, "LANG=C.UTF-8", "TMPDIR=" + os.TempDir(),
		"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PYTHONUNBUFFERED=1",
		"PIP_CACHE_DIR=" + filepath.Join(b.cfg.StateDir, "envs", ".cache"),
	}, b.cfg.Env...))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	var last []string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		if line != nil {
			line(text)
		}
		if last = append(last, text); len(last) > 12 {
			last = last[1:]
		}
	}
	_, _ = io.Copy(io.Discard, out) // what the scanner refused; the program must not block
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %s", err, tail(strings.Join(last, "\n")))
	}
	return nil
}

// withoutSecrets renders pip's arguments without what an index URL may hold
// between // and @: a new password does not make another environment.
func withoutSecrets(args []string) string {
	clean := make([]string, len(args))
	for i, arg := range args {
		if scheme, rest, ok := strings.Cut(arg, "://"); ok {
			host, path, _ := strings.Cut(rest, "/")
			arg = scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + path
		}
		clean[i] = hex.EncodeToString([]byte(arg))
	}
	return strings.Join(clean, " ")
}

// sweepEnvironments removes folders that no marker points to.
func (b *Backend) sweepEnvironments() {
	envs := filepath.Join(b.cfg.StateDir, "envs")
	entries, err := os.ReadDir(envs)
	if err != nil {
		return
	}
	used := map[string]bool{}
	for _, e := range entries {
		if key, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if p, err := b.loadImage(key); err == nil {
				used[p.Env] = true
			}
		}
	}
	for _, e := range entries {
		dir := filepath.Join(envs, e.Name())
		if e.IsDir() && plainName(e.Name()) && !used[dir] {
			b.discard(dir)
		}
	}
}
