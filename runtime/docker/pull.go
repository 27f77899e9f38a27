package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"

	"github.com/skiff-ml/skiff/runtime"
)

// maxPullLine bounds one message of the engine's progress stream.
const maxPullLine = 1 << 20

// pullMessage is one line of the stream, as far as it is read.
type pullMessage struct {
	Status   string `json:"status"`
	ID       string `json:"id"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error       string `json:"error"`
	ErrorDetail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// fetch pulls one image.
func (i *images) fetch(ctx context.Context, key flightKey, progress func(runtime.ImageProgress)) error {
	named, err := reference.ParseNormalizedNamed(key.ref)
	if err != nil {
		return err
	}
	domain := reference.Domain(named)
	progress(runtime.ImageProgress{Status: "asking " + domain})
	stream, err := i.api.ImagePull(ctx, key.ref, key.auth)
	if err != nil {
		return pullError(reference.FamiliarString(named), domain, err)
	}
	defer stream.Close()
	if err := readPull(stream, progress); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return pullError(reference.FamiliarString(named), domain, err)
	}
	return nil
}

// readPull follows a pull to its end. Errors of the pull come inside the stream,
// whose answer was a success long before.
func readPull(stream io.Reader, progress func(runtime.ImageProgress)) error {
	layers := pullProgress{layers: map[string]layer{}}
	d := json.NewDecoder(&lineLimit{r: stream, limit: maxPullLine})
	for {
		var m pullMessage
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the progress of the pull: %w", err)
		}
		if m.ErrorDetail.Message != "" || m.Error != "" {
			if m.ErrorDetail.Message != "" {
				return errors.New(m.ErrorDetail.Message)
			}
			return errors.New(m.Error)
		}
		if p, news := layers.add(m); news {
			progress(p)
		}
	}
}

// layer is what was told of one layer: its download, then its extraction. Each
// counts half, so that the sum only grows.
type layer struct{ down, extracted, total int64 }

type pullProgress struct{ layers map[string]layer }

// add takes a message and says what there is to show.
func (p *pullProgress) add(m pullMessage) (runtime.ImageProgress, bool) {
	if m.ID == "" {
		return runtime.ImageProgress{}, false
	}
	l := p.layers[m.ID]
	l.total = max(l.total, m.Progress.Total)
	switch m.Status {
	case "Downloading":
		l.down = m.Progress.Current
	case "Verifying Checksum", "Download complete":
		l.down = l.total
	case "Extracting":
		l.down, l.extracted = l.total, m.Progress.Current
	case "Pull complete", "Already exists":
		l.down, l.extracted = l.total, l.total
	default:
		return runtime.ImageProgress{}, false
	}
	p.layers[m.ID] = l
	var out runtime.ImageProgress
	for _, l := range p.layers {
		out.Current += (l.down + l.extracted) / 2
		out.Total += l.total
	}
	out.Status = strings.ToLower(m.Status)
	return out, true
}

// lineLimit ends a stream whose lines are longer than any engine writes.
type lineLimit struct {
	r     io.Reader
	limit int
	run   int // bytes since the last newline
}

func (l *lineLimit) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	for _, c := range p[:n] {
		if c == '\n' {
			l.run = 0
			continue
		}
		if l.run++; l.run > l.limit {
			return 0, fmt.Errorf("a line of more than %d bytes", l.limit)
		}
	}
	return n, err
}
