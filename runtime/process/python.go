package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// interpreter is a Python of this machine.
type interpreter struct {
	Executable string `json:"executable"` // its real path
	Version    string `json:"version"`
	Prefix     string `json:"prefix"`      // of itself, an environment's where it is in one
	BasePrefix string `json:"base_prefix"` // of its standard library
	identity   string
}

// describeScript prints what interpreter holds.
const describeScript = `import sys, json, os
print(json.dumps({"executable": os.path.realpath(sys.executable), "version": sys.version,
"prefix": sys.prefix, "base_prefix": sys.base_prefix}))`

// versioned finds a Python version in a reference: python:3.11-slim, python-311, python3.9.
var versioned = regexp.MustCompile(`(?:^|[^0-9])3\.?([0-9]{1,2})(?:[^0-9]|$)`)

// python finds the interpreter that stands for a reference.
func (b *Backend) python(ctx context.Context, ref string, rule Rule) (interpreter, error) {
	var names []string
	if rule.Python != "" {
		names = []string{rule.Python}
	} else {
		repository, tag := familiar(ref)
		for _, text := range []string{tag, repository[strings.LastIndexByte(repository, '/')+1:]} {
			if m := versioned.FindStringSubmatch(text); m != nil {
				names = append(names, "python3."+m[1])
				break
			}
		}
		if b.cfg.Python != "" {
			names = append(names, b.cfg.Python)
		}
		names = append(names, "python3")
	}
	var failed error
	for _, name := range names {
		py, err := b.inspect(ctx, name)
		if err == nil {
			return py, nil
		}
		failed = errors.Join(failed, err)
	}
	return interpreter{}, fmt.Errorf("no usable Python on this machine; install python3: %w", failed)
}

// inspect asks an interpreter what it is. The answer is kept: interpreters do
// not change under a running daemon, or its restart finds out.
func (b *Backend) inspect(ctx context.Context, name string) (interpreter, error) {
	b.mu.Lock()
	py, known := b.pythons[name]
	b.mu.Unlock()
	if known {
		return py, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return py, err
	}
	out, err := exec.CommandContext(ctx, path, "-I", "-c", describeScript).Output() // The administrator's own interpreter.
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, tail(string(exit.Stderr)))
		}
		return py, fmt.Errorf("ask %s what it is: %w", path, err)
	}
	if err := json.Unmarshal(out, &py); err != nil {
		return py, fmt.Errorf("ask %s what it is: %w", path, err)
	}
	if py.identity, err = fileIdentity(py.Executable); err != nil {
		return py, err
	}
	b.mu.Lock()
	b.pythons[name] = py
	b.mu.Unlock()
	return py, nil
}

// tail is the end of a program's complaint, short enough for a message.
func tail(text string) string {
	text = strings.TrimSpace(text)
	const most = 600
	if len(text) > most {
		text = "… " + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}
