package server

import (
	"context"
	"io"
	"net/http"
	"os"

	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/listen"
	"github.com/skiff-ml/skiff/store/artifact"
)

// BundleFileHeader says that the client hands its open file over with the
// request (listen.WithFile), to be written or read in place of a body.
const BundleFileHeader = "Skiff-Bundle-File"

// handed is the file that came with a request, or nil where the request does not
// speak of one. The caller closes it.
func handed(r *http.Request) (*os.File, error) {
	if r.Header.Get(BundleFileHeader) == "" {
		return nil, nil
	}
	f := listen.TakeFile(r.Context())
	if f == nil {
		return nil, kube.BadRequest("no file came with the request; only the first one on a connection of the unix socket can bring one")
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, kube.BadRequest("what came with the request is not a plain file")
	}
	return f, nil
}

// fileReader and fileWriter are a file until a context ends: nothing else tells
// whoever is busy with it that the client has left.
type (
	fileReader struct {
		ctx context.Context // a Reader has no other way to be told.
		r   io.Reader
	}
	fileWriter struct {
		ctx context.Context // as above.
		w   io.Writer
	}
)

func readFile(ctx context.Context, f *os.File) io.Reader { return fileReader{ctx, artifact.Ahead(f)} }

// writeFile has an exported bundle written to a file.
func writeFile(ctx context.Context, f *os.File, exported Exported) error {
	return artifact.WriteFile(f, func(w io.Writer) error { return exported.Write(ctx, fileWriter{ctx, w}) })
}

// Read implements io.Reader.
func (r fileReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// Write implements io.Writer.
func (w fileWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.w.Write(p)
}
