package artifact_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/store/artifact"
)

// TestWriteFile: what goes to a file in odd pieces and comes back from it is what
// it was, and an end that is none is told.
func TestWriteFile(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	data = append(data, "and an odd end"...)
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	must(t, err)
	n := int64(0)
	err = artifact.WriteFile(f, func(w io.Writer) (err error) {
		n, err = io.Copy(w, iotest.HalfReader(bytes.NewReader(data)))
		return err
	})
	if err = errors.Join(err, f.Close()); err != nil || n != int64(len(data)) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(data), err)
	}
	if f, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	in := artifact.Ahead(f)
	back, err := io.ReadAll(in)
	if err = errors.Join(err, in.Close()); err != nil || !bytes.Equal(back, data) {
		t.Fatalf("read %d of %d bytes: %v", len(back), len(data), err)
	}
	f, err = os.Create(path)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	err = artifact.WriteFile(f, func(w io.Writer) error {
		_, err := io.Copy(w, io.MultiReader(bytes.NewReader(data[:100]), iotest.ErrReader(io.ErrUnexpectedEOF)))
		return err
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that breaks off: %v", err)
	}
}

// TestDisk: files of all sizes, one behind the other on one Disk, are what was
// written to them, whatever size was said.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 9<<20+5)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	sizes := []int{0, 1, 4095, 4096, 256<<10 - 1, 256<<10 + 1, 4 << 20, 4<<20 + 4096, len(data)}
	d := artifact.NewDisk()
	open := map[string]*os.File{}
	for i, size := range sizes {
		for kind, said := range map[string]int64{"known": int64(size), "unknown": artifact.SizeUnknown, "less": int64(size / 2), "more": 2 * int64(size)} {
			name := fmt.Sprint(kind, i)
			f, err := os.Create(filepath.Join(dir, name))
			must(t, err)
			w := d.File(f, said)
			for rest := data[:size]; len(rest) > 0; {
				n, err := w.Write(rest[:min(len(rest), 1<<20+17)])
				must(t, err)
				rest = rest[n:]
			}
			if kind == "known" {
				must(t, w.Close())
				continue
			}
			open[name] = f
			must(t, w.Flush())
		}
	}
	must(t, d.Wait())
	for i, size := range sizes {
		for _, kind := range []string{"known", "unknown", "less", "more"} {
			name := fmt.Sprint(kind, i)
			if f := open[name]; f != nil {
				// It is a file like any other again: this is not a whole block.
				_, err := f.WriteAt([]byte("x"), int64(size))
				must(t, errors.Join(err, f.Truncate(int64(size)), f.Close()))
			}
			back, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			if !bytes.Equal(back, data[:size]) {
				t.Errorf("%s: %d bytes were written, and %d, or others, are there", name, size, len(back))
			}
		}
	}
}

// TestDiskFails: an error of a write that goes on beside others ends them all,
// and is told.
func TestDiskFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path) // for reading alone
	must(t, err)
	d := artifact.NewDisk()
	w := d.File(f, 10)
	_, err = w.Write([]byte("0123456789"))
	must(t, errors.Join(err, w.Close()))
	if err := d.Wait(); !errors.Is(err, unix.EBADF) {
		t.Errorf("a file that cannot be written: %v", err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is still open: %v", err)
	}
}
