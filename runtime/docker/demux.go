package docker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxFrame bounds one frame of a multiplexed stream. Engines send at most 32 KiB;
// the header's size is 32 bits of somebody else's choice.
const maxFrame = 1 << 20

// errStream: the stream is not what an engine sends.
var errStream = errors.New("malformed output stream")

// demux splits the engine's stream of frames (stream number, three zeros, size,
// bytes) into both outputs, and returns nil at its end. A writer that fails
// ends it.
func demux(r io.Reader, stdout, stderr io.Writer) error {
	var header [8]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read output: %w", err)
		}
		size := binary.BigEndian.Uint32(header[4:])
		if size > maxFrame || header[1]|header[2]|header[3] != 0 {
			return fmt.Errorf("%w: a frame of %d bytes", errStream, size)
		}
		var w io.Writer
		switch header[0] {
		case 0, 1:
			w = stdout
		case 2:
			w = stderr
		default:
			return fmt.Errorf("%w: stream %d", errStream, header[0])
		}
		if w == nil {
			w = io.Discard
		}
		n, err := io.CopyBuffer(writerOnly{w}, io.LimitReader(r, int64(size)), buf)
		if err == nil && n < int64(size) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("copy output: %w", err)
		}
	}
}

// writerOnly hides other methods, so that the buffer is used.
type writerOnly struct{ io.Writer }
