package auth

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// Web holds the checks against browsers that were led here by another site.
type Web struct {
	hosts       []string
	crossOrigin *http.CrossOriginProtection
}

// NewWeb allows requests to the loopback names and addresses and to the hosts
// given (names or addresses without a port).
func NewWeb(hosts ...string) *Web {
	allowed := []string{"localhost", "127.0.0.1", "::1"}
	for _, host := range hosts {
		if host != "" {
			allowed = append(allowed, strings.ToLower(host))
		}
	}
	return &Web{hosts: allowed, crossOrigin: http.NewCrossOriginProtection()}
}

// HostAllowed reports whether the Host header names this server. A name that
// somebody else's DNS points here (rebinding) does not. The address the
// connection came in on is always one of ours, and requests on a unix socket
// carry no meaningful host.
func (w *Web) HostAllowed(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, isUnix := local.(*net.UnixAddr); isUnix {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if slices.Contains(w.hosts, host) {
		return true
	}
	if tcp, ok := local.(*net.TCPAddr); ok {
		ip := net.ParseIP(host)
		return ip != nil && ip.Equal(tcp.IP)
	}
	return false
}

// SameOrigin refuses a request that changes something and that a page of
// another origin sent, by Sec-Fetch-Site or Origin.
func (w *Web) SameOrigin(r *http.Request) error { return w.crossOrigin.Check(r) }
