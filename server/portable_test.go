package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/store"
)

// played is a bundle as the rooms below give it; broken breaks off.
type played struct{ req server.ExportRequest }

func (p *played) Manifest() *bundle.Manifest {
	return &bundle.Manifest{Entries: []bundle.Entry{{Size: 7}}}
}

func (p *played) Write(_ context.Context, w io.Writer) error {
	if p.req.Run == "r2" {
		_, _ = io.WriteString(w, "half")
		return errors.New("the disk broke")
	}
	_, err := fmt.Fprintf(w, "%+v", p.req)
	return err
}

func (p *played) Close() error { return nil }

func (r *rooms) Export(_ context.Context, req server.ExportRequest) (server.Exported, error) {
	if req.Run == "no-such" || req.Pipeline == "no-such" {
		return nil, fmt.Errorf("export: %w", store.ErrNotFound)
	}
	return &played{req}, nil
}

func (r *rooms) Import(_ context.Context, req server.ImportRequest, body io.Reader) (*server.ImportReport, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte("evil")) {
		return nil, problem.List{{Object: "bundle", Err: errors.New("it is evil"), Hint: "leave it"}}
	}
	return &server.ImportReport{Namespace: req.Namespace, DryRun: req.DryRun, Created: []string{"as " + req.As}, Bytes: int64(len(data))}, nil
}

func (r *rooms) Reproduce(ctx context.Context, namespace, name string, anyImage bool) (*skiff.Run, error) {
	if _, err := r.store.Get(ctx, store.Key{Kind: "runs.skiff.dev", Namespace: namespace, Name: name}); err != nil {
		return nil, err
	}
	return &skiff.Run{ObjectMeta: core.ObjectMeta{Name: fmt.Sprint("again-", anyImage)}, Spec: skiff.RunSpec{Reproduces: name}}, nil
}

func (r *rooms) HashRun(context.Context, *skiff.Run) error { return nil }

// TestPortable sends bundles out and in.
func TestPortable(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", skiff.StateSucceeded)
	f.put(t, "r3", skiff.StateRunning)
	f.put(t, "r4", skiff.StateSucceeded)
	_, err := store.ModifyAs(t.Context(), f.store, store.Key{Kind: "runs.skiff.dev", Namespace: "default", Name: "r4"}, func(run *skiff.Run) error {
		run.Spec.Reproduces = "r1"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const space = "/apis/skiff.dev/v1alpha1/namespaces/default"
	var head bytes.Buffer
	head.WriteString(bundle.ManifestName + "\x00")
	for _, tc := range []struct {
		name, method, path, body, contentType string
		want                                  int
		contains                              []string
	}{
		{name: "export a run", method: "GET", path: space + "/runs/r1/bundle?artifacts=true&compression=none", want: 200,
			contains: []string{"Run:r1", "Runs:false", "Artifacts:true", "Images:false", "Compression:2"}},
		{name: "export a pipeline", method: "GET", path: space + "/pipelines/p/bundle?runs=true&images=1", want: 200, contains: []string{"Pipeline:p", "Runs:true", "Images:true"}},
		{name: "export nothing", method: "GET", path: space + "/runs/no-such/bundle", want: 404, contains: []string{`runs.skiff.dev \"no-such\" not found`}},
		{name: "an unknown compression", method: "GET", path: space + "/runs/r1/bundle?compression=zstd", want: 400, contains: []string{"stored, squeezed or none"}},
		{name: "import", method: "POST", path: space + "/bundles?as=x&dryRun=All", body: head.String(), want: 200, contains: []string{`"as x"`, `"dry_run":true`, `"namespace":"default"`}},
		{name: "import what is refused", method: "POST", path: space + "/bundles", body: head.String() + "evil", want: 422, contains: []string{"it is evil", `"hint":"leave it"`}},
		{name: "import nothing", method: "POST", path: space + "/bundles", body: "", want: 400, contains: []string{"no bundle"}},
		{name: "import a form", method: "POST", path: space + "/bundles", body: "a=b", contentType: "application/x-www-form-urlencoded", want: 415},
		{name: "import a package", method: "POST", path: space + "/bundles?filename=p.yaml", body: "good", want: 200, contains: []string{`"created":["pipeline p","pipeline version p"]`}},
		{name: "import it again", method: "POST", path: space + "/bundles?filename=p.yaml", body: "good", want: 200, contains: []string{`"created":[]`, `"present":["pipeline p"`}},
		{name: "import it by another name", method: "POST", path: space + "/bundles?as=q&dryRun=All", body: "good", want: 200, contains: []string{`"pipeline q"`}},
		{name: "import a bad package", method: "POST", path: space + "/bundles?filename=p.yaml", body: "bad", want: 422, contains: []string{"add one"}},
		{name: "reproduce", method: "POST", path: space + "/runs/r1/reproduction?anyImage=true", want: 201, contains: []string{"again-true", `"reproduces":"r1"`}},
		{name: "reproduce nothing", method: "POST", path: space + "/runs/no-such/reproduction", want: 404},
		{name: "compare", method: "GET", path: space + "/runs/r4/reproduction", want: 200, contains: []string{`"original":"r1"`, `"reproduced":"r4"`, `"identical":true`}},
		{name: "compare what reproduces nothing", method: "GET", path: space + "/runs/r1/reproduction", want: 400, contains: []string{"reproduces no other"}},
		{name: "compare what still runs", method: "GET", path: space + "/runs/r3/reproduction", want: 409, contains: []string{"it has ended"}},
		{name: "compare nothing", method: "GET", path: space + "/runs/no-such/reproduction", want: 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := f.do(tc.method, tc.path, strings.NewReader(tc.body), func(r *http.Request) {
				bearer(token)(r)
				r.Header.Set("Content-Type", "application/octet-stream")
				if tc.contentType != "" {
					r.Header.Set("Content-Type", tc.contentType)
				}
			})
			if w.Code != tc.want {
				t.Fatalf("got %d, want %d: %s", w.Code, tc.want, w.Body)
			}
			for _, text := range tc.contains {
				if !strings.Contains(w.Body.String(), text) {
					t.Errorf("the answer lacks %s: %s", text, w.Body)
				}
			}
		})
	}
	if got := f.do("GET", space+"/runs/r1/bundle", nil, bearer(token)).Header().Get(server.BundleSizeHeader); got != "7" {
		t.Errorf("the size is said to be %q", got)
	}
	// An export that breaks off breaks the connection: it must not look whole.
	defer func() {
		if cause := recover(); cause != http.ErrAbortHandler { //nolint:errorlint // A panic's value, as net/http compares it.
			t.Errorf("a broken export ended with %v", cause)
		}
	}()
	f.do("GET", space+"/runs/r2/bundle", nil, bearer(token))
}

// TestPackageOfAnotherName: a pipeline that is there with other contents stays.
func TestPackageOfAnotherName(t *testing.T) {
	f := newFixture(t)
	const path = "/apis/skiff.dev/v1alpha1/namespaces/default/bundles?filename=p.yaml"
	send := func(text string) (int, string) {
		w := f.do("POST", path, strings.NewReader(text), func(r *http.Request) {
			bearer(token)(r)
			r.Header.Set("Content-Type", "application/yaml")
		})
		return w.Code, w.Body.String()
	}
	if code, text := send("good"); code != http.StatusOK {
		t.Fatal(text)
	}
	page, err := f.store.List(t.Context(), store.ListOptions{Kind: "pipelineversions.pipelines.kubeflow.org"})
	if err != nil {
		t.Fatal(err)
	}
	var version struct {
		Spec struct{ PipelineSpec json.RawMessage }
	}
	data, err := json.Marshal(page.Items[0])
	if err = errors.Join(err, json.Unmarshal(data, &version)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"pipelineInfo":{"name":"p"}}`, string(version.Spec.PipelineSpec)); diff != "" {
		t.Error(diff)
	}
	if _, err := f.store.Commit(t.Context(), store.Op{Verb: store.Delete, Key: store.Key{Kind: "pipelineversions.pipelines.kubeflow.org",
		Namespace: "default", Name: page.Items[0].Metadata().Name}}); err != nil {
		t.Fatal(err)
	}
	if code, text := send("good"); code != http.StatusUnprocessableEntity || !strings.Contains(text, "--as NAME") {
		t.Errorf("a pipeline without this version: %d %s", code, text)
	}
}
