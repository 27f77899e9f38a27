//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// codeRefused is the exit code of a launcher that did not begin: another one
// lives, or its container has been started a second time.
const codeRefused = 125

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: launcher <control folder>")
		os.Exit(codeRefused)
	}
	if os.Args[1] == launch.KeepArg {
		os.Exit(keep())
	}
	os.Exit(run(os.Args[1]))
}

// run is the launcher's life in the control folder dir.
func run(dir string) int {
	home, err := os.Getwd()
	if err != nil {
		home = "/"
	}
	folder, err := openFolder(dir)
	if err != nil {
		return refuse(err)
	}
	lock, err := takeLock()
	if err != nil {
		return refuse(err)
	}
	defer func() { _ = lock.Close() }() // only held
	if err := neverRan(lock); err != nil {
		return refuse(err)
	}
	var cfg launch.Config
	data, err := readFile(launch.ConfigFile)
	if err == nil {
		err = json.Unmarshal(data, &cfg)
	}
	if err != nil {
		return refuse(fmt.Errorf("read configuration: %w", err))
	}
	l := newLauncher(newBase(), cfg, folder, lock)
	l.env, l.home = os.Environ(), home
	code, _ := l.live(l.arrange)
	return code
}

// refuse says on stderr (the engine's own log) why nothing was done.
func refuse(err error) int {
	fmt.Fprintln(os.Stderr, "launcher:", err)
	return codeRefused
}

// neverRan is an error where a launcher before this one got a command: a
// container that has run does not run again, whoever starts it.
func neverRan(lock rawFile) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(lock), &st); err != nil {
		return &os.PathError{Op: "stat", Path: launch.LockFile, Err: err}
	}
	_, err := os.Lstat(launch.ExitFile)
	switch {
	case st.Size > 0 || err == nil:
		return errors.New("this container has run already")
	case !errors.Is(err, syscall.ENOENT):
		return err
	}
	return nil
}
