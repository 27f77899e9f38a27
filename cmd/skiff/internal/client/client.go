package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/listen"
)

// ErrNoDaemon says that nothing answers where a daemon would.
var ErrNoDaemon = errors.New("no skiff daemon is running")

// dialTimeout is for a daemon on the same machine or in the same room.
const dialTimeout = 5 * time.Second

// transferBuffer is what is handed to the connection at once.
const transferBuffer = 256 << 10

// Config says where the daemon is.
type Config struct {
	// StateDir is where the socket, the token and the certificate are looked for.
	StateDir string
	// Host is HOST:PORT or a URL; empty means the socket.
	Host string
	// Token is shown to the daemon; empty means the one in the state folder,
	// where that can be read.
	Token string
}

// Client is one daemon's client. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
	// dial connects to the socket; nil where the daemon is elsewhere.
	dial func(ctx context.Context) (net.Conn, error)
	// where names the daemon in messages.
	where string
}

// New makes a client. Nothing is dialled yet.
func New(cfg Config) (*Client, error) {
	c := &Client{token: cfg.Token}
	if c.token == "" {
		token, err := auth.ReadAdminToken(cfg.StateDir)
		// On the socket the token is not needed; over TCP its absence shows as
		// an answer that names it.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		c.token = token
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		// Bundles go through in large pieces.
		WriteBufferSize: transferBuffer, ReadBufferSize: transferBuffer}
	c.http = &http.Client{Transport: transport}
	if cfg.Host == "" {
		c.base, c.where = "http://localhost", filepath.Join(cfg.StateDir, listen.SocketFile)
		c.dial = func(ctx context.Context) (net.Conn, error) { return listen.DialUnix(ctx, cfg.StateDir) }
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }
		return c, nil
	}
	base, err := parseHost(cfg.Host)
	if err != nil {
		return nil, err
	}
	c.base, c.where = strings.TrimSuffix(base.String(), "/"), base.Host
	transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	transport.Proxy = http.ProxyFromEnvironment
	if base.Scheme == "https" {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots(cfg.StateDir), MinVersion: tls.VersionTLS12}
	}
	return c, nil
}

func parseHost(host string) (*url.URL, error) {
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	base, err := url.Parse(host)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, fmt.Errorf("SKIFF_HOST %q: want HOST:PORT or an http or https address", host)
	}
	return base, nil
}

// roots are the machine's own authorities and the daemon's, where it is there.
func roots(stateDir string) *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if own, err := os.ReadFile(filepath.Join(stateDir, listen.TLSDir, listen.CAFile)); err == nil {
		pool.AppendCertsFromPEM(own)
	}
	return pool
}

// Where names the daemon: its socket or its address.
func (c *Client) Where() string { return c.where }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is a refusal by the daemon.
type StatusError struct{ kube.Status }

// Error gives the sentence.
func (e *StatusError) Error() string { return e.Message }

// Invalid reports whether err says that what was asked for is wrong, and that
// nothing was started because of it.
func Invalid(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code == http.StatusUnprocessableEntity ||
		status.Code == http.StatusBadRequest || status.Code == http.StatusRequestEntityTooLarge)
}

// NotFound reports whether err says that there is no such object.
func NotFound(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

// Lost reports whether err means that the daemon went away, rather than that it
// refused: what was asked may be asked again when it is back.
func Lost(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Code == http.StatusServiceUnavailable
	}
	var network *net.OpError
	return errors.Is(err, ErrNoDaemon) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.As(err, &network)
}

// request is one call.
type request struct {
	method, path string
	query        url.Values
	body         []byte
	contentType  string
	accept       string
	// stream, in place of body, is sent as it is read; size is its length, or
	// negative where that is unknown.
	stream io.Reader
	size   int64
	// file is handed over with the request; see Hands.
	file *os.File
}

// do sends a request and returns the answer where it is a success.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if r.stream != nil {
		req.Body, req.ContentLength, req.GetBody = io.NopCloser(r.stream), r.size, nil
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	caller := c.http
	if r.file != nil {
		req.Header.Set(server.BundleFileHeader, "handed")
		caller = c.handing(r.file)
	}
	res, err := caller.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		defer func() { _ = res.Body.Close() }()
		return nil, statusError(res)
	}
	return res, nil
}

// handing is for one request, on a connection of its own, that brings a file.
func (c *Client) handing(f *os.File) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		return listen.WithFile(conn, f), nil
	}}}
}

// unreachable tells a daemon that is not there from one that broke off.
func (c *Client) unreachable(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %s; start one with \"skiff up\"", ErrNoDaemon, c.where)
	}
	return fmt.Errorf("speak to the daemon at %s: %w", c.where, err)
}

// maxStatus bounds an error's body: a long list of problems fits.
const maxStatus = 4 << 20

func statusError(res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	var status kube.Status
	if rpc, is := rpcStatus(body); err == nil && is {
		return &StatusError{kube.Status{Code: res.StatusCode, Message: rpc}}
	}
	if err != nil || json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		status = kube.Status{Code: res.StatusCode, Message: fmt.Sprintf("the daemon answered %s: %s", res.Status, bytes.TrimSpace(body))}
	}
	return &StatusError{status}
}

// rpcStatus is the message of a google.rpc.Status, the body of refusals of the
// API of Kubeflow Pipelines.
func rpcStatus(body []byte) (message string, is bool) {
	var status struct {
		Kind    string `json:"kind"`
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	err := json.Unmarshal(body, &status)
	return status.Message, err == nil && status.Kind == "" && status.Code > 0 && status.Message != ""
}

// getJSON reads a document.
func (c *Client) getJSON(ctx context.Context, path string, query url.Values, into any) error {
	return c.callJSON(ctx, request{method: http.MethodGet, path: path, query: query}, into)
}

func (c *Client) callJSON(ctx context.Context, r request, into any) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer to %s %s: %w", r.method, r.path, err)
	}
	return nil
}
