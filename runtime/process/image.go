package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
)

// Kinds of a Rule.
const (
	KindPython = "python" // a Python interpreter, in an environment of its own
	KindShell  = "shell"  // the host's shell and tools
)

// Rule matches image references to what the host has instead.
type Rule struct {
	// Match is a pattern (path.Match) for the repository without its tag, as
	// people write it: "python", "jupyter/scipy-notebook". A pattern without a
	// slash is also held against the last element alone.
	Match string
	// Kind is KindPython or KindShell.
	Kind string
	// Python is the interpreter to use; empty takes the version that the
	// reference names where the host has it, and the default one elsewhere.
	Python string
	// Env is given to the container.
	Env []string
	// Programs must be on the host for the rule to hold.
	Programs []string
}

func (r Rule) check() error {
	if _, err := path.Match(r.Match, "x"); err != nil || r.Match == "" {
		return fmt.Errorf("process runtime: rule with pattern %q: %w", r.Match, path.ErrBadPattern)
	}
	if r.Kind != KindPython && r.Kind != KindShell {
		return fmt.Errorf("process runtime: rule %s: kind %q is neither %s nor %s", r.Match, r.Kind, KindPython, KindShell)
	}
	return nil
}

// builtinRules are tried in order after the configured ones.
func builtinRules() []Rule {
	rules := []Rule{
		{Match: "*python*", Kind: KindPython},
		{Match: "*jupyter*", Kind: KindPython},
		{Match: "jupyter/*", Kind: KindPython},
		{Match: "*-notebook", Kind: KindPython},
		{Match: "jq", Kind: KindShell, Programs: []string{"jq"}},
	}
	for _, name := range []string{"alpine", "busybox", "debian", "ubuntu", "bash"} {
		rules = append(rules, Rule{Match: name, Kind: KindShell})
	}
	return rules
}

// familiar is a reference's repository as people write it, and its tag.
func familiar(ref string) (repository, tag string) {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref, tag = ref[:i], ref[i+1:]
	}
	for _, prefix := range []string{"docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(ref, prefix); ok {
			return rest, tag
		}
	}
	return ref, tag
}

// match finds the rule for a reference.
func (b *Backend) match(ref string) (Rule, error) {
	repository, _ := familiar(ref)
	var missing []string
	for _, rule := range slices.Concat(b.cfg.Rules, builtinRules()) {
		hit, _ := path.Match(rule.Match, repository)
		if !hit && !strings.Contains(rule.Match, "/") {
			hit, _ = path.Match(rule.Match, path.Base(repository))
		}
		if !hit {
			continue
		}
		absent := slices.DeleteFunc(slices.Clone(rule.Programs), func(program string) bool {
			_, err := exec.LookPath(program)
			return err == nil
		})
		if len(absent) == 0 {
			return rule, nil
		}
		missing = append(missing, absent...)
	}
	if len(missing) > 0 {
		return Rule{}, fmt.Errorf("image %s cannot run as a process: this machine lacks %s; install it, or run with Docker: %w",
			ref, strings.Join(missing, ", "), runtime.ErrImageUnavailable)
	}
	return Rule{}, fmt.Errorf("image %s cannot run as a process: no rule says which of this machine's programs stands for it; "+
		"run with Docker (--runtime docker), or add a rule for it: %w", ref, runtime.ErrImageUnavailable)
}

// prepared is what Create needs to know about an image; it lies on disk, so
// that a container can be created after a restart.
type prepared struct {
	// Env is the folder of the Python environment, empty for shells.
	Env string `json:"env,omitempty"`
	// Visible are host folders that must be seen for it to run.
	Visible []string `json:"visible,omitempty"`
	// Installed are the pip calls that it holds, for whoever wonders.
	Installed []core.PipCall `json:"installed,omitempty"`
	Python    string         `json:"python,omitempty"`
	Version   string         `json:"version,omitempty"`
	// Identity is the digest.
	Identity string `json:"identity"`
}

// PrepareImage matches the reference to a host interpreter, and makes the
// environment that its packages ask for. One that was made before costs nothing.
func (b *Backend) PrepareImage(ctx context.Context, req runtime.ImageRequest, progress func(runtime.ImageProgress)) (runtime.Image, error) {
	if progress == nil {
		progress = func(runtime.ImageProgress) {}
	}
	rule, err := b.match(req.Ref)
	if err != nil {
		return runtime.Image{}, err
	}
	if rule.Kind == KindShell {
		img, err := b.shellImage(rule)
		if err == nil {
			err = req.Check(img)
		}
		return img, err
	}
	img, err := b.pythonImage(ctx, req, rule, progress)
	if err != nil {
		if ctx.Err() != nil {
			return runtime.Image{}, context.Cause(ctx)
		}
		return runtime.Image{}, fmt.Errorf("image %s cannot run as a process: %w: %w", req.Ref, err, runtime.ErrImageUnavailable)
	}
	return img, req.Check(img)
}

// shellID is the image id of the host's shell.
const shellID = "shell"

func (b *Backend) shellImage(rule Rule) (runtime.Image, error) {
	identity, err := fileIdentity("/bin/sh")
	if err != nil {
		return runtime.Image{}, fmt.Errorf("find the shell: %w: %w", err, runtime.ErrImageUnavailable)
	}
	return runtime.Image{
		ID: shellID, Digest: digest(shellID, identity, strings.Join(rule.Env, "\n")),
		Cmd: []string{"/bin/sh"}, Env: append([]string{"PATH=" + searchPath}, rule.Env...),
	}, nil
}

// loadImage finds what PrepareImage made.
func (b *Backend) loadImage(id string) (prepared, error) {
	if id == shellID || id == "" {
		return prepared{}, nil
	}
	if !plainName(id) {
		return prepared{}, fmt.Errorf("image %q: %w", id, runtime.ErrImageUnavailable)
	}
	var p prepared
	data, err := os.ReadFile(filepath.Join(b.cfg.StateDir, "envs", id+".json"))
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if errors.Is(err, os.ErrNotExist) {
		return prepared{}, fmt.Errorf("image %q is not prepared: %w", id, runtime.ErrImageUnavailable)
	}
	return p, err
}

// fileIdentity tells one version of a program from another without reading it.
func fileIdentity(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", resolved, info.Size(), info.ModTime().UnixNano()), nil
}

// digest hashes parts that are kept apart.
func digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
