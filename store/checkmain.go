package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Exit codes of CheckMain.
const (
	checkOK = iota
	checkFailed
	checkUsage
	checkLocked
	checkCorrupt
	checkNewer
)

// maxCheckOutput is how much of a check's words goes into an error.
const maxCheckOutput = 4096

// CheckMain is the check as a program: args are PATH and optionally --full. It
// writes what it found to out and returns the exit code. It may die of the
// file, which its parent takes as damage.
func CheckMain(args []string, out io.Writer) int {
	path, full := "", false
	for _, arg := range args {
		switch {
		case arg == "--full":
			full = true
		case path == "" && !strings.HasPrefix(arg, "-"):
			path = arg
		default:
			path = ""
		}
	}
	if path == "" {
		_, _ = fmt.Fprintln(out, "usage: store-check PATH [--full]")
		return checkUsage
	}
	err := Check(context.Background(), path, full)
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
	}
	switch {
	case err == nil:
		return checkOK
	case errors.Is(err, ErrLocked):
		return checkLocked
	case errors.Is(err, ErrCorrupt):
		return checkCorrupt
	case errors.Is(err, ErrNewer):
		return checkNewer
	default:
		return checkFailed
	}
}

// bootCheckTimeout is far beyond what reading a few pages of a slow disk takes.
const bootCheckTimeout = time.Minute

// bootCheck has the file looked at before this process maps it.
func bootCheck(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, bootCheckTimeout)
	defer cancel()
	err := runCheck(ctx, cfg.CheckCommand, cfg.Path, false)
	if errors.Is(err, ErrLocked) {
		// Open waits longer for the lock, and tells who holds it.
		return nil
	}
	if err != nil {
		return withBackupHint(fmt.Errorf("open store: %w", err), cfg.BackupDir)
	}
	return nil
}

// runCheck runs CheckMain in a child process; an empty command checks nothing.
func runCheck(ctx context.Context, command []string, path string, full bool) error {
	if len(command) == 0 {
		return nil
	}
	// A path that begins with a dash is no flag.
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	args := append(command[1:len(command):len(command)], path)
	if full {
		args = append(args, "--full")
	}
	child := exec.CommandContext(ctx, command[0], args...)
	var out limitedBuffer
	child.Stdout, child.Stderr = &out, &out
	err = child.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run the store's check: %w", err)
	}
	said := strings.TrimSpace(out.String())
	switch child.ProcessState.ExitCode() {
	case checkOK:
		return nil
	case checkLocked:
		return fmt.Errorf("%s: %w", said, ErrLocked)
	case checkNewer:
		return fmt.Errorf("%s: %w", said, ErrNewer)
	case checkCorrupt:
		return fmt.Errorf("%s: %w", said, ErrCorrupt)
	case checkFailed, checkUsage:
		return fmt.Errorf("check store %s: %s", path, said)
	default:
		// A crash, which is how bbolt and the kernel answer a damaged page.
		first, _, _ := strings.Cut(said, "\n")
		return fmt.Errorf("check store %s: the check ended with %s (%s): %w", path, child.ProcessState, first, ErrCorrupt)
	}
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := maxCheckOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
