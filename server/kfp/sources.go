package kfp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// Sources says from where the daemon fetches pipelines that a request names by
// address. The daemon stands where its callers may not, so by default it
// fetches nothing.
type Sources struct {
	// Public allows addresses of the internet; Private also those of this
	// machine and its networks.
	Public, Private bool
}

const (
	// fetchTimeout is for a package of some megabytes over a poor link.
	fetchTimeout = 30 * time.Second
	// maxRedirects is what a release download takes, and one more.
	maxRedirects = 3
)

var errForbiddenAddress = errors.New("the address is on this machine or a private network, from which nothing is fetched")

// fetch reads what is at an address.
func (s Sources) fetch(ctx context.Context, address string) ([]byte, error) {
	if !s.Public && !s.Private {
		return nil, refuse(rpcPrecondition, "package_url: this daemon fetches no pipelines by address; upload the file to %s/pipelines/upload, "+
			"or start the daemon with --pipeline-urls=public", base)
	}
	target, err := url.Parse(address)
	if err != nil || (target.Scheme != "https" && target.Scheme != "http") || target.Host == "" || target.User != nil {
		return nil, badRequest("package_url.pipeline_url %.200q: want an http or https address without a user", address)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	client := s.client()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, badRequest("package_url.pipeline_url: %v", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, badRequest("fetch the pipeline: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, badRequest("fetch the pipeline: %s answers %s", target.Host, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxUpload+1))
	switch {
	case err != nil:
		return nil, badRequest("fetch the pipeline: %v", err)
	case len(data) > maxUpload:
		return nil, badRequest("fetch the pipeline: it has more than %d bytes", maxUpload)
	}
	return data, nil
}

// client dials by itself, past any proxy, and looks at the address that a name
// came to, so that neither a name nor a redirect leads where it may not.
func (s Sources) client() *http.Client {
	dialer := &net.Dialer{Timeout: fetchTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		if s.Private {
			return nil
		}
		at, err := netip.ParseAddrPort(address)
		if err != nil || !public(at.Addr()) {
			return errForbiddenAddress
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			if req.URL.Scheme != "https" && req.URL.Scheme != "http" {
				return fmt.Errorf("a redirect leads to a %s address", req.URL.Scheme)
			}
			return nil
		},
	}
}

// reserved are further networks that are nobody's on the internet: shared by
// carriers, for tests, and IPv4 written as IPv6.
func reserved() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"),
	}
}

// public reports whether an address is one of the internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, network := range reserved() {
		if network.Contains(ip) {
			return false
		}
	}
	return true
}
