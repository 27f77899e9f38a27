package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/listen"
)

// TestHandedFile sends bundles to and from files that come with the request.
func TestHandedFile(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	socket, err := listen.Unix(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, socket) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	file := func(name, contents string) *os.File {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, []byte(contents), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		return opened
	}
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(pipe.Close(), other.Close()) }()
	const space = "/apis/skiff.dev/v1alpha1/namespaces/default"
	head := bundle.ManifestName + "\x00"
	for _, tc := range []struct {
		name, method, path string
		file               *os.File // nil: none comes
		want               int
		answer, written    string
	}{
		{"export", "GET", "/runs/r1/bundle?artifacts=true", file("export", ""), 204, "", "Run:r1"},
		{"export what breaks off", "GET", "/runs/r2/bundle", file("broken", ""), 500, "the disk broke", ""},
		{"export nothing", "GET", "/runs/no-such/bundle", file("nothing", ""), 404, "not found", ""},
		{"export to nowhere", "GET", "/runs/r1/bundle", nil, 400, "no file came with the request", ""},
		{"export to a pipe", "GET", "/runs/r1/bundle", other, 400, "not a plain file", ""},
		{"import", "POST", "/bundles?as=x", file("import", head+"contents"), 200, `"as x"`, ""},
		{"import what is refused", "POST", "/bundles", file("evil", head+"evil"), 422, "it is evil", ""},
		{"import from nowhere", "POST", "/bundles", nil, 400, "no file came with the request", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := listen.DialUnix(ctx, dir)
				if err != nil || tc.file == nil {
					return conn, err
				}
				return listen.WithFile(conn, tc.file), nil
			}}
			size := ""
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
				size = header.Get(server.BundleSizeHeader)
				return nil
			}})
			req, err := http.NewRequestWithContext(ctx, tc.method, "http://localhost"+space+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			// No token: the socket itself says who asks.
			req.Header.Set(server.BundleFileHeader, "handed")
			res, err := (&http.Client{Transport: transport}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err = errors.Join(err, res.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tc.want || !strings.Contains(string(body), tc.answer) {
				t.Errorf("got %d %s, want %d with %q", res.StatusCode, body, tc.want, tc.answer)
			}
			if tc.written == "" {
				return
			}
			text, err := os.ReadFile(tc.file.Name())
			if err != nil || !strings.Contains(string(text), tc.written) {
				t.Errorf("the file has %q (%v), want %q", text, err, tc.written)
			}
			if size != "7" {
				t.Errorf("the size is said to be %q", size)
			}
		})
	}
}
