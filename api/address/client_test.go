package address_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/address"
)

// world is a network of its own: names, and at every address one server. What
// is dialled is written down.
type world struct {
	// names are what each look-up of a name finds, one after another; the last
	// one stays.
	names   map[string][][]string
	dead    []string
	server  string
	looked  map[string]int
	dialled []string
}

func newWorld(t *testing.T, names map[string][][]string, handler http.Handler) *world {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &world{names: names, server: server.Listener.Addr().String(), looked: map[string]int{}}
}

func (w *world) client(reach address.Reach) *http.Client {
	return address.NewClient(address.Config{
		Reach: reach,
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			answers, known := w.names[host]
			if !known {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			n := min(w.looked[host], len(answers)-1)
			w.looked[host]++
			var out []netip.Addr
			for _, ip := range answers[n] {
				out = append(out, netip.MustParseAddr(ip))
			}
			return out, nil
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			w.dialled = append(w.dialled, address)
			if slices.Contains(w.dead, address) {
				return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
			}
			return (&net.Dialer{}).DialContext(ctx, network, w.server)
		},
	})
}

// site answers /to?URL by a redirect, /loop by another to itself, and all else
// by the host it was asked for.
func site() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/to":
			w.Header().Set("Location", r.URL.RawQuery)
			w.WriteHeader(http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			_, _ = fmt.Fprintf(w, "from %s", r.Host)
		}
	})
}

func TestClient(t *testing.T) {
	names := func() map[string][][]string {
		return map[string][][]string{
			"good.example":     {{"93.184.216.34"}},
			"other.example":    {{"8.8.8.8"}},
			"inside.example":   {{"10.0.0.5"}},
			"here.example":     {{"127.0.0.1", "::1"}},
			"mapped.example":   {{"::ffff:10.0.0.5"}},
			"cloud.example":    {{"169.254.169.254"}},
			"mixed.example":    {{"10.0.0.5", "93.184.216.34"}},
			"nothing.example":  {{}},
			"rebinds.example":  {{"93.184.216.34"}, {"127.0.0.1"}},
			"two.example":      {{"8.8.4.4", "93.184.216.34"}},
			"half.example":     {{"8.8.4.4", "10.0.0.5"}},
			"2130706433":       {{"127.0.0.1"}}, // what the system makes of such names
			"0x7f.1":           {{"127.0.0.1"}},
			"localhost":        {{"127.0.0.1"}},
			"metadata.example": {{"fd00:ec2::254"}},
		}
	}
	dead := []string{"8.8.4.4:80"}
	for _, tc := range []struct {
		name, url string
		reach     address.Reach
		dialled   string // all that may be dialled, in order
		want      string // the body, or "" for a refusal
		because   string // in the refusal
	}{
		{"public", "http://good.example/p", address.Internet, "93.184.216.34:80", "from good.example", ""},
		{"public, by digits and port", "http://8.8.8.8:8080/p", address.Internet, "8.8.8.8:8080", "from 8.8.8.8:8080", ""},
		{"private", "http://inside.example/p", address.Internet, "", "", "private network"},
		{"private, where that is allowed", "http://inside.example/p", address.Anywhere, "10.0.0.5:80", "from inside.example", ""},
		{"private, mapped into IPv6", "http://mapped.example/p", address.Internet, "", "", "private network"},
		{"this machine", "http://here.example/p", address.Internet, "", "", "private network"},
		{"this machine, where that is allowed", "http://here.example/p", address.Anywhere, "127.0.0.1:80", "from here.example", ""},
		{"localhost", "http://localhost:7433/apis", address.Internet, "", "", "private network"},
		{"one number", "http://2130706433/", address.Internet, "", "", "private network"},
		{"hexadecimal", "http://0x7f.1/", address.Internet, "", "", "private network"},
		{"credentials of the cloud", "http://cloud.example/latest", address.Internet, "", "", "credentials"},
		{"credentials of the cloud, by digits", "http://169.254.169.254/latest", address.Anywhere, "", "", "credentials"},
		{"credentials of the cloud, by IPv6", "http://metadata.example/latest", address.Anywhere, "", "", "credentials"},
		{"private beside public", "http://mixed.example/p", address.Internet, "93.184.216.34:80", "from mixed.example", ""},
		{"no address", "http://nothing.example/p", address.Internet, "", "", "has no address"},
		{"no such name", "http://unknown.example/p", address.Internet, "", "", "no such host"},
		{"first address is dead", "http://two.example/p", address.Internet, "8.8.4.4:80 93.184.216.34:80", "from two.example", ""},
		{"the other one is private", "http://half.example/p", address.Internet, "8.8.4.4:80", "", "connection refused"},
		{"nowhere", "http://good.example/p", address.Nowhere, "", "", "nothing is fetched"},

		{"redirect", "http://good.example/to?http://other.example/p", address.Internet, "93.184.216.34:80 8.8.8.8:80", "from other.example", ""},
		{"redirect to a private name", "http://good.example/to?http://inside.example/p", address.Internet, "93.184.216.34:80", "", "private network"},
		{"redirect to this machine", "http://good.example/to?http://127.0.0.1:7433/apis", address.Internet, "93.184.216.34:80", "", "private network"},
		{"redirect to IPv6 of this machine", "http://good.example/to?http://[::1]:7433/apis", address.Internet, "93.184.216.34:80", "", "private network"},
		{"redirect to the cloud's credentials", "http://good.example/to?http://169.254.169.254/latest", address.Anywhere, "93.184.216.34:80", "", "credentials"},
		{"redirect twice, then inside", "http://good.example/to?http://other.example/to?http://inside.example/", address.Internet, "93.184.216.34:80 8.8.8.8:80", "", "private network"},
		{"redirect to a file", "http://good.example/to?file:///etc/passwd", address.Anywhere, "93.184.216.34:80", "", "http or https"},
		{"redirect with a password", "http://good.example/to?http://u:p@other.example/", address.Internet, "93.184.216.34:80", "", "without a user"},
		{"redirects without end", "http://good.example/loop", address.Internet, "93.184.216.34:80", "", "too many redirects"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, names(), site())
			w.dead = dead
			body, err := get(t, w.client(tc.reach), tc.url)
			if got := strings.Join(w.dialled, " "); got != tc.dialled {
				t.Errorf("dialled %q, want %q", got, tc.dialled)
			}
			if body != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("got %q, %v; want %q", body, err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), tc.because) {
				t.Errorf("%v; want %q", err, tc.because)
			}
			if err != nil && strings.Contains(err.Error(), "10.0.0.5") {
				t.Errorf("%v tells what the name is inside", err)
			}
		})
	}
}

// TestRebinding: a name that is another address at its second look-up is judged
// by the one that is dialled, within one client and with a connection closed in
// between.
func TestRebinding(t *testing.T) {
	w := newWorld(t, map[string][][]string{"rebinds.example": {{"93.184.216.34"}, {"127.0.0.1"}}}, site())
	client := w.client(address.Internet)
	if body, err := get(t, client, "http://rebinds.example/p"); err != nil || body == "" {
		t.Fatalf("first: %q, %v", body, err)
	}
	client.CloseIdleConnections()
	if _, err := get(t, client, "http://rebinds.example/p"); !errors.Is(err, address.ErrForbidden) {
		t.Errorf("second: %v", err)
	}
	if w.looked["rebinds.example"] != 2 || len(w.dialled) != 1 || w.dialled[0] != "93.184.216.34:80" {
		t.Errorf("looked up %v, dialled %v", w.looked, w.dialled)
	}
}

// TestDowngrade: a redirect that gives the protection of https up is refused.
func TestDowngrade(t *testing.T) {
	server := httptest.NewTLSServer(http.RedirectHandler("http://other.example/", http.StatusFound))
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport)
	client := address.NewClient(address.Config{
		Reach: address.Internet,
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
		},
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		},
		TLS: transport.TLSClientConfig,
	})
	_, err := get(t, client, "https://example.com/")
	if !errors.Is(err, address.ErrForbidden) || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("%v", err)
	}
}

// TestSystem: without a resolver and a dialler of its own a client uses the
// system's, and its refusals are the same.
func TestSystem(t *testing.T) {
	server := httptest.NewServer(site())
	defer server.Close()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		target := "http://" + net.JoinHostPort(host, at.Port()) + "/p"
		if body, err := get(t, address.NewClient(address.Config{Reach: address.Anywhere}), target); err != nil || body == "" {
			t.Errorf("%s from anywhere: %q, %v", target, body, err)
		}
		if body, err := get(t, address.NewClient(address.Config{Reach: address.Internet}), target); !errors.Is(err, address.ErrForbidden) {
			t.Errorf("%s from the internet: %q, %v", target, body, err)
		}
	}
}

func get(t *testing.T, client *http.Client, target string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}
