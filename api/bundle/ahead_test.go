package bundle

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCopyAhead(t *testing.T) {
	data := make([]byte, 5*bufferSize+7)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	broken := errors.New("broken")
	buffers := newBuffers()
	for name, src := range map[string]io.Reader{
		"at once": bytes.NewReader(data), "in halves": iotest.HalfReader(bytes.NewReader(data)), "with its end": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		var out bytes.Buffer
		if n, err := copyAhead(&out, src, buffers); err != nil || n != int64(len(data)) || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	if n, err := copyAhead(io.Discard, bytes.NewReader(nil), buffers); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
	var out bytes.Buffer
	if n, err := copyAhead(&out, io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), buffers); !errors.Is(err, broken) || n != int64(len(data)) {
		t.Errorf("a source that breaks: %d, %v", n, err)
	}
	for _, most := range []int64{0, 1, 2*bufferSize + 1} {
		n, err := copyAhead(&failing{left: most, err: broken}, bytes.NewReader(data), buffers)
		if !errors.Is(err, broken) || n != most {
			t.Errorf("a target that breaks after %d: %d, %v", most, n, err)
		}
	}
}

// failing takes so many bytes and then fails.
type failing struct {
	left int64
	err  error
}

func (f *failing) Write(p []byte) (int, error) {
	if int64(len(p)) <= f.left {
		f.left -= int64(len(p))
		return len(p), nil
	}
	n := int(f.left)
	f.left = 0
	return n, f.err
}
