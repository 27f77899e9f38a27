package main

import (
	"os"
	"syscall"
)

// The few small files are read and written by system calls: package os would
// ask the poller about each of them, and start it for that.

// rawFile is an open file that nothing polls.
type rawFile int

// Write writes all of p, or says why not.
func (f rawFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := syscall.Write(int(f), p[done:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Close closes the file.
func (f rawFile) Close() error { return syscall.Close(int(f)) }

// readFile reads a small file whole.
func readFile(name string) ([]byte, error) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd) //nolint:errcheck // It was only read.
	data := make([]byte, 0, 4<<10)
	for {
		n, err := syscall.Read(fd, data[len(data):cap(data)])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		data = data[:len(data)+n]
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// writeFile writes to a file that is there.
func writeFile(name string, data []byte) error {
	fd, err := syscall.Open(name, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	_, err = rawFile(fd).Write(data)
	if err2 := syscall.Close(fd); err == nil {
		err = err2
	}
	return err
}
