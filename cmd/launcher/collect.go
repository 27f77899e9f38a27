package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// executorOutput is the part of KFP's ml_pipelines.ExecutorOutput that tells
// where artifacts were written.
type executorOutput struct {
	Artifacts map[string]struct {
		Artifacts []customPath `json:"artifacts"`
	} `json:"artifacts"`
}

// customPath is one artifact's, in either spelling.
type customPath struct {
	Camel string `json:"customPath"`
	Snake string `json:"custom_path"`
}

// collect copies artifacts from places of the command's own choosing to where
// they are kept, and adds what went wrong to problems. It runs with the
// command's rights, and nothing of the command runs any more.
func collect(c launch.Collect, problems map[string]string) map[string]string {
	report := func(name string, err error) {
		if problems == nil {
			problems = map[string]string{}
		}
		problems[name] = err.Error()
	}
	data, err := readOutput(c.Manifest, launch.MaxOutput)
	if errors.Is(err, fs.ErrNotExist) {
		return problems // a command that names no artifacts
	}
	var out executorOutput
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		for name := range c.Paths {
			report(name, fmt.Errorf("read %s: %w", c.Manifest, err))
		}
		return problems
	}
	for name, to := range c.Paths {
		list := out.Artifacts[name].Artifacts
		if len(list) == 0 {
			continue
		}
		from := list[0].Camel
		if from == "" {
			from = list[0].Snake
		}
		if from == "" || filepath.Clean(from) == filepath.Clean(to) {
			continue
		}
		if err := collectOne(from, to); err != nil {
			report(name, fmt.Errorf("keep %s as %s: %w", from, to, err))
		}
	}
	return problems
}

// collectOne replaces to by a copy of the file or folder at from.
func collectOne(from, to string) error {
	resolved, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if realTo, err := filepath.EvalSymlinks(to); err == nil {
		if realTo == resolved {
			return nil
		}
		if strings.HasPrefix(realTo, resolved+"/") {
			return errors.New("the place where it is kept lies inside of it")
		}
	}
	// Beside the place, so that what lies inside the place can be kept too.
	tmp := to + ".collected"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := mkdirAll(filepath.Dir(to), nil); err != nil {
		return err
	}
	if err := copyTree(resolved, tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.RemoveAll(to); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, to)
}

// copyTree copies regular files and folders, and links that stay inside.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			if err := os.Mkdir(target, 0o777); err != nil {
				return err
			}
			return os.Chmod(target, 0o777)
		case d.Type().IsRegular():
			return copyFile(path, target)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err == nil && staysInside(rel, link) {
				err = os.Symlink(link, target)
			}
			return err
		}
		return nil
	})
}

// staysInside says whether a link at rel within a tree cannot lead out of it: it
// goes up first, not above the tree, and then only down. Down again may pass
// other links, of which the same holds.
func staysInside(rel, link string) bool {
	if link == "" || filepath.IsAbs(link) || rel == "." {
		return false
	}
	parts := strings.Split(link, "/")
	up := 0
	for up < len(parts) && (parts[up] == ".." || parts[up] == "." || parts[up] == "") {
		up++
	}
	if slices.Contains(parts[up:], "..") {
		return false
	}
	ups := 0
	for _, part := range parts[:up] {
		if part == ".." {
			ups++
		}
	}
	return ups <= strings.Count(rel, "/")
}

// copyFile copies one regular file. The kernel shares its blocks where the file
// system can.
func copyFile(from, to string) error {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := plainFile(in, info); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err2 := out.Close(); err == nil {
		err = err2
	}
	return err
}
