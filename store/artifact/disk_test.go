package artifact_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

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
