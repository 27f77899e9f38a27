package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// Level is how far a container is kept apart from the machine.
type Level string

// The levels, from the weakest. LevelAuto takes the strongest that works.
const (
	LevelAuto       Level = ""
	LevelProcess    Level = "process"    // a session, a scrubbed environment
	LevelNamespaces Level = "namespaces" // and a root, /proc, /dev, /tmp and process ids of its own
)

// Config is what a Backend is made from. StateDir and LauncherPath are required.
type Config struct {
	// StateDir is the daemon's state folder. It is hidden from every container.
	StateDir string
	// LauncherPath is the unpacked launcher.
	LauncherPath string
	Logger       *slog.Logger
	// Env is given to every container and to pip (proxies, a corporate CA).
	Env []string
	// Visible are host files and folders that containers must see though they
	// may lie below a hidden one, such as the CA bundle that Env names.
	Visible []string
	// Masked are further host folders that containers must not see. Home
	// folders and StateDir always are.
	Masked []string
	// Python is the default host interpreter; empty means python3 of PATH.
	Python string
	// SystemSitePackages lets environments see the interpreter's own packages.
	SystemSitePackages bool
	// PipArgs are added to every pip install (an index, a folder of wheels).
	PipArgs []string
	// Rules are tried before the built-in ones.
	Rules []Rule
	// Level is the strongest isolation to use.
	Level Level
	// NoCgroups does without control groups, even where they work.
	NoCgroups bool
}

// clean checks the configuration and resolves its paths.
func (c Config) clean() (Config, error) {
	if c.StateDir == "" || c.LauncherPath == "" {
		return c, errors.New("process runtime: StateDir and LauncherPath are required")
	}
	for _, rule := range c.Rules {
		if err := rule.check(); err != nil {
			return c, err
		}
	}
	for _, dir := range []string{"process", keptFolder, "envs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(c.StateDir, dir), 0o700); err != nil {
			return c, fmt.Errorf("process runtime: %w", err)
		}
	}
	// The launcher's view is made of real paths.
	for _, path := range []*string{&c.StateDir, &c.LauncherPath} {
		abs, err := filepath.Abs(*path)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return c, fmt.Errorf("process runtime: %w", err)
		}
		*path = abs
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
