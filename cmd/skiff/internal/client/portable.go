package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
)

func bundlePath(namespace string, parts ...string) string {
	escaped := []string{skiffRoot, "namespaces", url.PathEscape(namespace)}
	for _, part := range parts {
		escaped = append(escaped, url.PathEscape(part))
	}
	return strings.Join(escaped, "/")
}

// Export asks for a bundle of a pipeline or a run (plural, name); query says
// what goes along. size is that of its contents, unpacked. The caller closes it.
func (c *Client) Export(ctx context.Context, namespace, plural, name string, query url.Values) (body io.ReadCloser, size int64, err error) {
	res, err := c.do(ctx, request{method: http.MethodGet, path: bundlePath(namespace, plural, name, "bundle"), query: query})
	if err != nil {
		return nil, 0, err
	}
	size, err = strconv.ParseInt(res.Header.Get(server.BundleSizeHeader), 10, 64)
	if err != nil {
		size = 0 // it is for the progress alone
	}
	return res.Body, size, nil
}

// Hands reports whether the daemon can be handed files: where it is on the
// socket. It then reads and writes them itself, and nothing goes through the
// connection.
func (c *Client) Hands() bool { return c.dial != nil }

// ExportTo has the daemon write a bundle to a file that it is handed. size is
// called once, with that of the bundle's contents, unpacked.
func (c *Client) ExportTo(ctx context.Context, namespace, plural, name string, query url.Values, f *os.File, size func(int64)) error {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
		if n, err := strconv.ParseInt(header.Get(server.BundleSizeHeader), 10, 64); err == nil {
			size(n) // it is for the progress alone
		}
		return nil
	}})
	res, err := c.do(ctx, request{method: http.MethodGet, path: bundlePath(namespace, plural, name, "bundle"), query: query, file: f})
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("export %s: the daemon answered %s, and did not say that it wrote the file", name, res.Status)
	}
	return nil
}

// ImportFrom has the daemon read a bundle from a file that it is handed.
func (c *Client) ImportFrom(ctx context.Context, namespace string, query url.Values, f *os.File) (*server.ImportReport, error) {
	report := &server.ImportReport{}
	return report, c.callJSON(ctx, request{method: http.MethodPost, path: bundlePath(namespace, "bundles"), query: query, file: f}, report)
}

// Import sends a bundle, of so many bytes; a negative size is unknown.
func (c *Client) Import(ctx context.Context, namespace string, query url.Values, bundle io.Reader, size int64) (*server.ImportReport, error) {
	report := &server.ImportReport{}
	return report, c.callJSON(ctx, request{method: http.MethodPost, path: bundlePath(namespace, "bundles"), query: query,
		contentType: "application/octet-stream", stream: bundle, size: size}, report)
}

// Reproduce makes a run that does another one again.
func (c *Client) Reproduce(ctx context.Context, namespace, run string, anyImage bool) (*skiff.Run, error) {
	query := url.Values{}
	if anyImage {
		query.Set("anyImage", "true")
	}
	made := &skiff.Run{}
	if err := c.callJSON(ctx, request{method: http.MethodPost, path: bundlePath(namespace, "runs", run, "reproduction"), query: query}, made); err != nil {
		return nil, fmt.Errorf("reproduce run %s: %w", run, err)
	}
	return made, nil
}

// Reproduction compares a run that reproduces another with that.
func (c *Client) Reproduction(ctx context.Context, namespace, run string) (*view.Reproduction, error) {
	r := &view.Reproduction{}
	return r, c.getJSON(ctx, bundlePath(namespace, "runs", run, "reproduction"), nil, r)
}
