package main

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

const peersAbout = "One lightweight Python component that does nothing, compiled by the kfp SDK, caching off: through a daemon, from " +
	"submission to the news of its end, beside kfp.local in a Python process that has kfp loaded. Both have run it once " +
	"before, so that images and packages are at hand. Most of SubprocessRunner's time is the component's pip prelude, which " +
	"finds everything installed; skiff's process runtime recognises that prelude and keeps what it made. On Docker both run it."

// kfpVersion is the SDK that the corpus is compiled with; dockerVersion is the
// package that its DockerRunner needs beside it.
const (
	kfpVersion    = "2.17.0"
	dockerVersion = "7.2.0"
	// installPatience bounds the installation of the SDK where there is none
	// yet.
	installPatience = 3 * time.Minute
)

//go:embed peers.py
var peersProgram []byte

// runPeers compares with both runners of kfp.local.
func runPeers(ctx context.Context, b *bench) (err error) {
	python, err := b.kfpPython(ctx)
	if err != nil {
		b.note("Left out: %v.", err)
		return ctx.Err()
	}
	kfp, err := startPeer(ctx, b, python)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kfp.close()) }()
	file := filepath.Join(b.dir, "noop.yaml")
	if _, err := kfp.do("compile", file); err != nil {
		return err
	}
	pipeline, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the compiled component: %w", err)
	}
	compare := func(runner, peerName, runtime string) func(d *daemon) error {
		return func(d *daemon) error { return b.peer(ctx, kfp, d, pipeline, runner, peerName, runtime) }
	}
	flags := append([]string{"--runtime", "process"}, b.wheelhouse()...)
	if err := b.withDaemon(ctx, "process", flags, compare("subprocess", "kfp.local SubprocessRunner(use_venv=False)", "process")); err != nil {
		return err
	}
	api, err := engine(ctx, pythonImage)
	if err != nil {
		b.note("Docker left out: %v.", err)
		return ctx.Err()
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	return b.withDockerDaemon(ctx, api, "docker", compare("docker", "kfp.local DockerRunner", "docker"))
}

// peer compares one runtime with one runner.
func (b *bench) peer(ctx context.Context, kfp *peer, d *daemon, pipeline []byte, runner, peerName, runtime string) error {
	root := filepath.Join(b.dir, "kfp-"+runner)
	theirs := func(context.Context) (float64, error) { return kfp.do(runner, root) }
	ours := func(ctx context.Context) (float64, error) {
		took, err := d.run(ctx, pipeline)
		return took.Seconds(), err
	}
	b.say("%s: running once for the packages", runtime)
	if _, err := ours(ctx); err != nil {
		return err
	}
	if _, err := theirs(ctx); err != nil {
		return err
	}
	return b.compare(ctx, "one component on "+runtime, peerName, seconds(), noBar(), ours, theirs)
}

// kfpPython is the interpreter of a virtual environment with the SDK in the
// development cache; it is made where it is missing, except in quick mode.
func (b *bench) kfpPython(ctx context.Context) (string, error) {
	cache, err := devCache()
	if err != nil {
		return "", err
	}
	venv := filepath.Join(cache, "venv", "kfp-"+kfpVersion+"-docker-"+dockerVersion)
	python, complete := filepath.Join(venv, "bin", "python3"), filepath.Join(venv, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return python, nil
	}
	if b.quick {
		return "", fmt.Errorf("%s is not there; a full run makes it", venv)
	}
	b.say("installing kfp %s into %s, once", kfpVersion, venv)
	ctx, cancel := context.WithTimeout(ctx, installPatience)
	defer cancel()
	for _, argv := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		{python, "-m", "pip", "install", "--quiet", "kfp==" + kfpVersion, "docker==" + dockerVersion},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("kfp %s could not be installed (%s: %w: %.500s); is a Python package index reachable?", kfpVersion, argv, err, out)
		}
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		return "", fmt.Errorf("mark the environment as complete: %w", err)
	}
	return python, nil
}

// devCache is the folder that the Makefile's targets share.
func devCache() (string, error) {
	if named := os.Getenv("SKIFF_CACHE"); named != "" {
		return named, nil
	}
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the cache: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "skiff-dev"), nil
}

// wheelhouse are flags that make the process runtime install from the images'
// wheels, where `make images` has made them and an interpreter for them is here;
// elsewhere it asks the package index.
func (b *bench) wheelhouse() []string {
	wheels := os.Getenv("SKIFF_TEST_WHEELS")
	if cache, err := devCache(); wheels == "" && err == nil {
		complete, _ := filepath.Glob(filepath.Join(cache, "images", "wheels-*", ".complete")) // the pattern is good
		if _, err := exec.LookPath("python3.11"); err == nil && len(complete) > 0 {
			wheels = filepath.Dir(slices.MaxFunc(complete, func(a, b string) int { return modified(a).Compare(modified(b)) }))
		}
	}
	if wheels == "" {
		return nil
	}
	return []string{"--container-env", "PIP_NO_INDEX=1", "--container-env", "PIP_FIND_LINKS=" + wheels}
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// peer is a Python process with kfp loaded.
type peer struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
	log     string
}

func startPeer(ctx context.Context, b *bench, python string) (*peer, error) {
	program := filepath.Join(b.dir, "peers.py")
	if err := os.WriteFile(program, peersProgram, 0o600); err != nil {
		return nil, fmt.Errorf("write the peer's program: %w", err)
	}
	p := &peer{log: program + ".log"}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("write the peer's log: %w", err)
	}
	defer log.Close()
	p.cmd = exec.CommandContext(ctx, python, program)
	// Its "python3" is the environment's, and pip keeps quiet about news.
	p.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(python)+":"+cmp.Or(os.Getenv("PATH"), "/usr/bin:/bin"),
		"PIP_DISABLE_PIP_VERSION_CHECK=1")
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start kfp: %w", err)
	}
	p.answers = bufio.NewScanner(out)
	return p, nil
}

// do gives one command and returns the seconds that it took.
func (p *peer) do(command, argument string) (float64, error) {
	if _, err := fmt.Fprintf(p.in, "%s %s\n", command, argument); err != nil {
		return 0, fmt.Errorf("kfp.local %s: %w: %s", command, err, tail(p.log))
	}
	if !p.answers.Scan() {
		return 0, fmt.Errorf("kfp.local %s: it ended (%w): %s", command, cmp.Or(p.answers.Err(), io.EOF), tail(p.log))
	}
	var answer struct {
		Seconds float64 `json:"seconds"`
		Error   string  `json:"error"`
	}
	if err := json.Unmarshal(p.answers.Bytes(), &answer); err != nil {
		return 0, fmt.Errorf("kfp.local %s answers %q: %w", command, p.answers.Text(), err)
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("kfp.local %s: %s: %s", command, answer.Error, tail(p.log))
	}
	return answer.Seconds, nil
}

// close ends the process by the end of its input.
func (p *peer) close() error {
	if err := errors.Join(p.in.Close(), p.cmd.Wait()); err != nil {
		return fmt.Errorf("end kfp: %w", err)
	}
	return nil
}
