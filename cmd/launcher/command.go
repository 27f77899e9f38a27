package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/logfile"
)

// Exit codes of a command that was not executed, as shells and engines use them.
const (
	codeNotStarted    = 128 // something before the execution went wrong
	codeNotExecutable = 126
	codeNotFound      = 127
)

// defaultPath is searched where the environment names none, as execvp does.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandOnDisk reads command.json, nil where there is none.
func commandOnDisk() (*launch.Command, error) {
	data, err := readFile(launch.CommandFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var cmd launch.Command
	if err == nil {
		err = json.Unmarshal(data, &cmd)
	}
	if err == nil && cmd.ID == "" {
		err = errors.New("the command has no id")
	}
	if err != nil {
		return nil, fmt.Errorf("read command: %w", err)
	}
	return &cmd, nil
}

// run starts the one command of this life. Whatever goes wrong ends in the
// record, so there is nothing to return.
func (l *launcher) run(cmd launch.Command) {
	l.cmd = &cmd
	l.phase = launch.PhaseRunning
	// From here on no launcher will run a command in this folder.
	l.started = launch.Started{CommandID: cmd.ID, At: time.Now().UTC()}
	if err := l.saveStarted(); err != nil {
		l.started.CommandID = ""
		l.cannotRun(codeNotStarted, err.Error())
		return
	}
	p, code, err := l.prepare(cmd)
	if err == nil {
		l.pid, code, err = l.start(p)
	}
	if err != nil {
		l.cannotRun(code, err.Error())
		l.hold()
		return
	}
	l.record.StartedAt = l.started.At
	l.started.PID = l.pid
	l.hearAll()
	for c := range l.conns {
		c.send(launch.Frame{Started: &l.started})
	}
}

// saveStarted leaves the command's identity on disk, before there is a process.
func (l *launcher) saveStarted() error {
	data, err := json.Marshal(l.started)
	if err != nil {
		return err
	}
	l.told = append(data, '\n')
	if _, err := l.lock.Write(l.told); err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	return nil
}

// prepare works out everything that an execution needs. The code is what the
// record says where that fails.
func (l *launcher) prepare(cmd launch.Command) (program, int, error) {
	var env []string
	if !cmd.ClearEnv {
		env = l.env
	}
	env = mergeEnv(env, cmd.Env)
	if cmd.User != "" {
		who, err := resolveUser(cmd.User)
		if err != nil {
			return program{}, codeNotStarted, fmt.Errorf("run as user %q: %w", cmd.User, err)
		}
		if who.uid != os.Geteuid() || who.gid != os.Getegid() {
			l.who = who
		}
		if who.home != "" && l.needsHome(env, cmd.Env) {
			env = mergeEnv(env, []string{"HOME=" + who.home})
		}
	}
	dir := cmd.Dir
	if dir == "" {
		dir = l.home
	}
	for _, d := range append([]string{dir}, cmd.Directories...) {
		if err := l.makeDirs(d); err != nil {
			return program{}, codeNotStarted, fmt.Errorf("create directory: %w", err)
		}
	}
	for _, link := range cmd.Links {
		if !filepath.IsAbs(link.Path) {
			link.Path = filepath.Join(dir, link.Path)
		}
		if err := l.makeLink(link); err != nil && !link.Optional {
			return program{}, codeNotStarted, fmt.Errorf("create link: %w", err)
		}
	}
	if len(cmd.Argv) == 0 {
		return program{}, codeNotFound, errors.New("exec: no command: neither the image nor the pod names one")
	}
	path, code, err := lookPath(cmd.Argv[0], env)
	if err != nil {
		return program{}, code, err
	}
	return program{path: path, argv: cmd.Argv, env: env, dir: dir, who: l.who}, 0, nil
}

// needsHome: a container engine sets the home of the user that the launcher is,
// which is not the command's.
func (l *launcher) needsHome(env, asked []string) bool {
	home, set := lookupEnv(env, "HOME")
	if _, explicit := lookupEnv(asked, "HOME"); explicit || !set || l.who == nil {
		return !set
	}
	own, err := resolveUser(strconv.Itoa(os.Geteuid()))
	return err == nil && home == own.home
}

// start connects the command's outputs to the log and starts it.
func (l *launcher) start(p program) (pid, code int, err error) {
	null, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, codeNotStarted, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	p.files = []int{null}
	defer func() {
		for _, fd := range p.files {
			_ = syscall.Close(fd)
		}
	}()
	l.logs = logfile.NewWriter(l.folder, l.cfg.Log.MaxBytes)
	for _, stream := range []string{"stdout", "stderr"} {
		pump, fd, err := newPump(l.logs.Stream(stream))
		if err != nil {
			return 0, codeNotStarted, err
		}
		l.pumps = append(l.pumps, pump)
		p.files = append(p.files, fd)
	}
	return l.fork(p)
}

// fork starts a program in a session and process group of its own.
func (l *launcher) fork(p program) (pid, code int, err error) {
	pid, err = spawn(p, l.cfg.View != nil)
	switch {
	case err == nil:
		l.await()
		return pid, 0, nil
	case errors.Is(err, syscall.ENOENT):
		code = codeNotFound
	default:
		code = codeNotExecutable
	}
	return 0, code, fmt.Errorf("exec: %q: %w", p.argv[0], err)
}

// mergeEnv joins two lists of NAME=value; later entries win and keep their place.
func mergeEnv(base, more []string) []string {
	last := make(map[string]int, len(base)+len(more))
	all := append(append([]string{}, base...), more...)
	for i, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	out := make([]string, 0, len(all))
	for i, kv := range all {
		name, _, ok := strings.Cut(kv, "=")
		if ok && name != "" && last[name] == i {
			out = append(out, kv)
		}
	}
	return out
}

func lookupEnv(env []string, name string) (string, bool) {
	for _, kv := range env {
		if n, v, _ := strings.Cut(kv, "="); n == name {
			return v, true
		}
	}
	return "", false
}

// lookPath finds a program as execvp would, with the command's own PATH.
func lookPath(file string, env []string) (path string, code int, err error) {
	if file == "" {
		return "", codeNotFound, errors.New(`exec: "": no command`)
	}
	if strings.Contains(file, "/") {
		return file, 0, nil
	}
	search, ok := lookupEnv(env, "PATH")
	if !ok {
		search = defaultPath
	}
	denied := false
	for _, dir := range filepath.SplitList(search) {
		if dir == "" {
			dir = "."
		}
		p := dir + "/" + file
		info, err := os.Stat(p)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 != 0 {
			return p, 0, nil
		}
		denied = true
	}
	if denied {
		return "", codeNotExecutable, fmt.Errorf("exec: %q: permission denied", file)
	}
	return "", codeNotFound, fmt.Errorf("exec: %q: not found in $PATH", file)
}

// makeDirs creates a folder with its parents, open to everybody: first as the
// command's user, then, where that may not, as the launcher's own.
func (l *launcher) makeDirs(dir string) error {
	var err error
	var give func(string)
	if l.who == nil {
		// The daemon can then remove what the command leaves in them.
		give = l.folder.give
	}
	l.as(func() { err = mkdirAll(dir, give) })
	if l.who == nil || err == nil {
		return err
	}
	return mkdirAll(dir, nil)
}

// makeLink makes a symbolic link where nothing stands yet.
func (l *launcher) makeLink(link launch.Link) error {
	if _, err := os.Lstat(link.Path); err == nil {
		return nil
	}
	if err := l.makeDirs(filepath.Dir(link.Path)); err != nil {
		return err
	}
	var err error
	l.as(func() { err = os.Symlink(link.Target, link.Path) })
	if l.who != nil && err != nil {
		err = os.Symlink(link.Target, link.Path)
	}
	return err
}

// mkdirAll tells made of each folder that it made.
func mkdirAll(dir string, made func(string)) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := mkdirAll(parent, made); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if made != nil {
		made(dir)
	}
	return os.Chmod(dir, 0o777) // whatever the umask
}
