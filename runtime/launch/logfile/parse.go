package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// timeLayout has a fixed width, so that a line's parts lie at fixed places.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// MaxLine is the longest line of a log file, with its newline: the time, the
// longest stream name, the mark and a full chunk.
const MaxLine = len(timeLayout) + len(" stdout F ") + launch.LogChunk + 1

// ErrLine is the class of every line that is not a log entry.
var ErrLine = errors.New("malformed log line")

// Parse reads one line, without its newline. The entry's text shares line's memory.
func Parse(line []byte) (launch.LogEntry, error) {
	const stamp = len(timeLayout)
	if len(line) < stamp+1 || line[stamp] != ' ' {
		return launch.LogEntry{}, fmt.Errorf("%w: no time", ErrLine)
	}
	at, err := time.Parse(timeLayout, string(line[:stamp]))
	if err != nil {
		return launch.LogEntry{}, fmt.Errorf("%w: %w", ErrLine, err)
	}
	stream, rest, ok := bytes.Cut(line[stamp+1:], []byte{' '})
	if !ok || len(rest) < 2 || rest[1] != ' ' || (rest[0] != 'F' && rest[0] != 'P') {
		return launch.LogEntry{}, fmt.Errorf("%w: no stream or no mark", ErrLine)
	}
	e := launch.LogEntry{At: at, Partial: rest[0] == 'P', Text: rest[2:]}
	switch string(stream) {
	case "stdout":
		e.Stream = "stdout"
	case "stderr":
		e.Stream = "stderr"
	case launch.LogOffset:
		e.Stream = launch.LogOffset
	default:
		return launch.LogEntry{}, fmt.Errorf("%w: unknown stream", ErrLine)
	}
	return e, nil
}

// Offset reads the entry that starts every file but the first: how many bytes
// of output came before that file.
func Offset(e launch.LogEntry) (int64, error) {
	n, err := strconv.ParseInt(string(e.Text), 10, 64)
	if e.Stream != launch.LogOffset || err != nil || n < 0 {
		return 0, fmt.Errorf("%w: not an offset", ErrLine)
	}
	return n, nil
}

// Size is how many bytes of the command's output an entry stands for.
func Size(e launch.LogEntry) int64 {
	if e.Stream == launch.LogOffset {
		return 0
	}
	if e.Partial {
		return int64(len(e.Text))
	}
	return int64(len(e.Text)) + 1
}

// appendEntry renders one line.
func appendEntry(b []byte, at time.Time, stream string, partial bool, text []byte) []byte {
	return appendStamped(b, appendTime(nil, at), stream, partial, text)
}

func appendTime(b []byte, at time.Time) []byte { return at.UTC().AppendFormat(b, timeLayout) }

func appendStamped(b, stamp []byte, stream string, partial bool, text []byte) []byte {
	b = append(b, stamp...)
	b = append(b, ' ')
	b = append(b, stream...)
	if partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, text...)
	return append(b, '\n')
}
