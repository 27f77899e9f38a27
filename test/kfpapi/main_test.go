package kfpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/engine/recurring"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "skf_test-token"

// otherKinds are those of the engines that are not at work here.
func otherKinds() []store.Kind { return append(pod.Kinds(), recurring.Kinds()...) }

// now is the one moment of these tests.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// api is a server with the engine that checks and keeps what is submitted, and
// runs nothing.
type api struct {
	*server.Server
	store *store.Store
	rooms *rooms
}

// rooms plays what lies below the engine.
type rooms struct {
	*pipeline.Controller
	logs, contents map[string]string
}

func (r *rooms) Submit(ctx context.Context, s server.Submission) (*skiff.Run, error) {
	return r.Controller.Submit(ctx, pipeline.Submission(s))
}

func (r *rooms) Check(ctx context.Context, s server.Submission) error {
	return r.Controller.Check(ctx, pipeline.Submission(s))
}

func (r *rooms) Trigger(context.Context, string, string) (*skiff.Run, error) {
	return nil, errors.New("nothing follows schedules here")
}

func (r *rooms) PrepareImage(context.Context, runtime.ImageRequest, func(runtime.ImageProgress)) (runtime.Image, error) {
	return runtime.Image{}, errors.New("no image is needed here")
}

func (r *rooms) EnsureVolume(context.Context, string, string) (string, error) {
	return "", errors.New("no volume is needed here")
}

func (r *rooms) PodLogs(_ context.Context, _, name string, _ server.LogOptions, w io.Writer) error {
	text, known := r.logs[name]
	if !known {
		return fmt.Errorf("log of pod %s: %w", name, store.ErrNotFound)
	}
	_, err := io.WriteString(w, text)
	return err
}

func (r *rooms) Usage(context.Context) ([]view.Usage, error) { return nil, nil }
func (r *rooms) Node(context.Context) (*view.Node, error)    { return &view.Node{}, nil }
func (r *rooms) OpenArtifact(_ context.Context, a *skiff.Artifact) (*server.Content, error) {
	text, known := r.contents[a.Name]
	if !known {
		return nil, fmt.Errorf("artifact %s: %w", a.Name, store.ErrNotFound)
	}
	return &server.Content{ReadCloser: io.NopCloser(strings.NewReader(text)), Size: int64(len(text))}, nil
}

func newAPI(t testing.TB, change func(*server.Config)) *api {
	t.Helper()
	s := openStore(t)
	repository, err := artifact.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rooms{logs: map[string]string{}, contents: map[string]string{}}
	r.Controller, err = pipeline.New(pipeline.Config{Store: s, Artifacts: repository, Images: r, Volumes: r, Fit: func(*core.Pod) error { return nil },
		Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{Store: s, Pipelines: r, Logs: r, Node: r, Artifacts: r, AdminToken: token, Now: func() time.Time { return now },
		PipelineSources: address.Internet}
	if change != nil {
		change(&cfg)
	}
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &api{Server: srv, store: s, rooms: r}
}

// do sends a request as the administrator. A body that begins with "@" names a
// file to upload in the published form's field.
func (a *api) do(method, path string, body []byte, file string) *httptest.ResponseRecorder {
	contentType := "application/json"
	if file != "" {
		var form bytes.Buffer
		w := multipart.NewWriter(&form)
		part, err := w.CreateFormFile("uploadfile", file)
		if err == nil {
			_, err = part.Write(body)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			panic(err) // into memory
		}
		body, contentType = form.Bytes(), w.FormDataContentType()
	}
	req := httptest.NewRequest(method, "http://127.0.0.1:7433"+path, bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, req)
	return w
}

// keep stores objects.
func (a *api) keep(t testing.TB, kind string, objects ...core.Object) {
	t.Helper()
	ops := make([]store.Op, 0, len(objects))
	for _, obj := range objects {
		ops = append(ops, store.Op{Verb: store.Put, Kind: kind, Object: obj})
	}
	if _, err := a.store.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

func readTestdata(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decode reads an answer that must be a success.
func decode(t *testing.T, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatal(err)
	}
}

// fuzzAPI is one for all of a fuzz test's inputs, with some runs.
func fuzzAPI(f *testing.F) *api {
	f.Helper()
	a := newAPI(f, nil)
	fleet(f, a, 12)
	return a
}
