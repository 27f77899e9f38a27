package kfp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
)

// message is one that writes its own JSON. Runs do, for a page of them may hold
// one pipeline fifty times: its JSON was compact and valid when it was stored,
// and encoding/json would look through it each time.
type message interface {
	appendJSON(dst []byte) ([]byte, error)
}

var _, _ message = (*run)(nil), (*listRunsResponse)(nil)

// appendJSON implements message.
func (m *run) appendJSON(dst []byte) ([]byte, error) {
	rest := *m
	rest.PipelineSpec = nil
	fields, err := json.Marshal(&rest)
	if err != nil {
		return nil, fmt.Errorf("encode run %s: %w", m.RunID, err)
	}
	dst = slices.Grow(dst, len(fields)+len(m.PipelineSpec)+len(`{"pipeline_spec":,`+"\n"))
	if len(m.PipelineSpec) == 0 {
		return append(dst, fields...), nil
	}
	dst = append(dst, `{"pipeline_spec":`...)
	dst = append(dst, m.PipelineSpec...)
	if len(fields) > len("{}") {
		dst = append(dst, ',')
	}
	return append(dst, fields[1:]...), nil
}

// appendJSON implements message.
func (m *listRunsResponse) appendJSON(dst []byte) ([]byte, error) {
	dst = slices.Grow(dst, m.sizeHint())
	separator := byte('{')
	field := func(name string) {
		dst = append(append(append(append(dst, separator), '"'), name...), '"', ':')
		separator = ','
	}
	if len(m.Runs) > 0 {
		field("runs")
		for i, one := range m.Runs {
			between := byte(',')
			if i == 0 {
				between = '['
			}
			var err error
			if dst, err = one.appendJSON(append(dst, between)); err != nil {
				return nil, err
			}
		}
		dst = append(dst, ']')
	}
	if m.TotalSize != 0 {
		field("total_size")
		dst = strconv.AppendInt(dst, int64(m.TotalSize), 10)
	}
	if m.NextPageToken != "" {
		field("next_page_token")
		dst = strconv.AppendQuote(dst, m.NextPageToken) // letters and digits alone
	}
	if separator == '{' {
		dst = append(dst, '{')
	}
	return append(dst, '}'), nil
}

// sizeHint is about what the answer takes: of a large one, growing by and by
// would copy all of it several times.
func (m *listRunsResponse) sizeHint() int {
	const besides = 2 << 10 // a run takes without its pipeline
	size := len(m.NextPageToken) + besides
	for _, one := range m.Runs {
		size += len(one.PipelineSpec) + besides
	}
	return size
}

// maxSpecs bounds the pipelines that are kept, in bytes: some hundreds of usual
// ones.
const maxSpecs = 16 << 20

// specCache keeps pipelines as clients see them, by the manifest's namespace and
// name. A manifest is named by its contents, so what is kept stays true.
type specCache struct {
	mu    sync.Mutex
	specs map[string]json.RawMessage
	// order is the names from the oldest on, size what all take.
	order []string
	size  int
}

func (c *specCache) get(key string) (json.RawMessage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	spec, found := c.specs[key]
	return spec, found
}

func (c *specCache) put(key string, spec json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.specs[key]; known || len(spec) > maxSpecs {
		return
	}
	if c.specs == nil {
		c.specs = map[string]json.RawMessage{}
	}
	c.specs[key], c.order, c.size = spec, append(c.order, key), c.size+len(spec)
	for c.size > maxSpecs {
		oldest := c.order[0]
		c.size -= len(c.specs[oldest])
		delete(c.specs, oldest)
		c.order = c.order[1:]
	}
}
