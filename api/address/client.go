package address

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	// DefaultDialTimeout is for one of a name's addresses: where the first does
	// not answer the next one is tried.
	DefaultDialTimeout = 5 * time.Second
	// maxRedirects is what a release download takes, and one more.
	maxRedirects = 3
	// maxHeader and headerTimeout bound a peer that says too much or nothing.
	maxHeader     = 64 << 10
	headerTimeout = 30 * time.Second
)

// Config says how a client finds and reaches addresses; the zero value of all
// but Reach is the system's way.
type Config struct {
	Reach Reach
	// Resolve looks a name up.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to IP:PORT.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// TLS holds authorities beside the system's.
	TLS *tls.Config
}

// NewClient makes an HTTP client that goes nowhere but where Reach allows, past
// any proxy. A refusal is ErrForbidden, within the *url.Error of the client. The
// time that a request takes as a whole is for its context to bound.
//
// What it is sent to is not compressed for transport: a body is the file as it
// is there, whose size the caller bounds.
func NewClient(cfg Config) *http.Client {
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: DefaultDialTimeout}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: cfg.dial, ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: cfg.TLS,
			MaxResponseHeaderBytes: maxHeader, ResponseHeaderTimeout: headerTimeout, TLSHandshakeTimeout: headerTimeout,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			if err := checkURL(next.URL); err != nil {
				return fmt.Errorf("a redirect leads astray: %w", err)
			}
			if next.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" {
				return fmt.Errorf("a redirect leads from https to http: %w", ErrForbidden)
			}
			return nil
		},
	}
}

// dial connects to the first address of a host that is within reach and
// answers. The name is looked up here and nowhere else.
func (c *Config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", address, err)
	}
	found, err := c.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var refused, failed error
	for _, ip := range found {
		if err := c.Reach.Allows(ip); err != nil {
			refused = fmt.Errorf("%s: %w", host, err)
			continue
		}
		conn, err := c.Dial(ctx, network, net.JoinHostPort(ip.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		failed = err
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case failed != nil: // what is within reach does not answer: that is the news
		return nil, failed
	case refused != nil:
		return nil, refused
	}
	return nil, fmt.Errorf("%s has no address", host)
}

func (c *Config) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := c.Resolve(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return found, nil
}
