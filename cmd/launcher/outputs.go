package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// procMagic is the file system type of /proc: an output that is a link into it
// would show the launcher's own view of itself.
const procMagic = 0x9fa0

// readOutputs reads the declared files. One that is not there is absent from both maps.
func readOutputs(outputs []launch.Output) (values map[string][]byte, problems map[string]string) {
	left := int64(launch.MaxOutputs)
	for _, o := range outputs {
		data, err := readOutput(o.Path, min(left, launch.MaxOutput))
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			if problems == nil {
				problems = map[string]string{}
			}
			problems[o.Name] = err.Error()
		default:
			if values == nil {
				values = map[string][]byte{}
			}
			values[o.Name] = data
			left -= int64(len(data))
		}
	}
	return values, problems
}

// readOutput reads one regular file of at most limit bytes and waits for nothing.
func readOutput(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY, 0)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, os.ErrNotExist
	}
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link, not a regular file", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := plainFile(f, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s holds more than the %d bytes that are left for values: pass it as an artifact", path, limit)
	}
	return data, nil
}

// plainFile is an error for anything but a regular file outside /proc.
func plainFile(f *os.File, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type == procMagic {
		return fmt.Errorf("%s lies in /proc", f.Name())
	}
	return nil
}
