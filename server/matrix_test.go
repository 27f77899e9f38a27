package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAccessMatrix sends every route of the table as every kind of caller. The
// rows come from the table itself, so a new route cannot be left out; what it
// must answer follows from whether it is public and whether it changes things.
func TestAccessMatrix(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", "SUCCEEDED")
	unsafe := func(method string) bool { return method != http.MethodGet && method != http.MethodHead }
	callers := []struct {
		caller
		// want is the refusal; 0 means that the request gets through to the route.
		want func(method string, public bool) int
	}{
		{caller{"anonymous", func(*http.Request) {}}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"wrong token", bearer("skf_wrong")}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"empty token", bearer("")}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"token as basic password", func(r *http.Request) { r.SetBasicAuth("admin", token) }}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"token in the query", func(r *http.Request) { r.URL.RawQuery = "token=" + token }}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"administrator", bearer(token)}, func(string, bool) int { return 0 }},
		{caller{"administrator from a foreign page", func(r *http.Request) {
			bearer(token)(r)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "https://evil.example")
		}}, func(method string, _ bool) int { return unless(!unsafe(method), http.StatusForbidden) }},
		{caller{"administrator with a foreign origin only", func(r *http.Request) {
			bearer(token)(r)
			r.Header.Set("Origin", "https://evil.example")
		}}, func(method string, _ bool) int { return unless(!unsafe(method), http.StatusForbidden) }},
		{caller{"rebound name", func(r *http.Request) { bearer(token)(r); r.Host = "evil.example:7433" }}, func(string, bool) int { return http.StatusMisdirectedRequest }},
		{caller{"name that ends like ours", func(r *http.Request) { bearer(token)(r); r.Host = "localhost.evil:7433" }}, func(string, bool) int { return http.StatusMisdirectedRequest }},
		{caller{"name that holds our address", func(r *http.Request) { bearer(token)(r); r.Host = "127.0.0.1.nip.io" }}, func(string, bool) int { return http.StatusMisdirectedRequest }},
		{caller{"user on the loopback", f.from(portOfUser)}, func(string, bool) int { return 0 }},
		{caller{"user on the loopback with a wrong token", both(f.from(portOfUser), bearer("skf_wrong"))}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"user on the loopback through a proxy", both(f.from(portOfUser), header("X-Forwarded-For", "127.0.0.1"))}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"own page on the loopback", both(f.from(portOfUser), both(header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://127.0.0.1:7433")))}, func(string, bool) int { return 0 }},
		{caller{"foreign page on the loopback", both(f.from(portOfUser), header("Sec-Fetch-Site", "cross-site"))}, foreignPage},
		{caller{"foreign origin on the loopback", both(f.from(portOfUser), header("Origin", "http://127.0.0.1:8888"))}, foreignPage},
		{caller{"rebound name on the loopback", both(f.from(portOfUser), func(r *http.Request) { r.Host = "evil.example:7433" })}, func(string, bool) int { return http.StatusMisdirectedRequest }},
		{caller{"user on the loopback without a role", f.from(portOfGuest)}, func(_ string, public bool) int { return unless(public, http.StatusForbidden) }},
		{caller{"stranger on the loopback", f.from(portOfStranger)}, func(_ string, public bool) int { return unless(public, http.StatusUnauthorized) }},
		{caller{"stranger on the loopback with the token", both(f.from(portOfStranger), bearer(token))}, func(string, bool) int { return 0 }},
	}
	routes := f.Routes()
	if len(routes) < 20 {
		t.Fatalf("the table has %d routes; the matrix would prove nothing", len(routes))
	}
	for _, r := range routes {
		if r.Verb == "" || r.Resource == "" {
			t.Errorf("%s: a route without verb or resource cannot be authorized", r.Pattern())
		}
		path := strings.NewReplacer("{namespace}", "default", "{name}", "no-such", "{$}", "").Replace(r.Path)
		for _, c := range callers {
			t.Run(c.name+" "+r.Pattern(), func(t *testing.T) {
				w := f.do(r.Method, path, nil, c.change)
				want := c.want(r.Method, r.Public)
				refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden || w.Code == http.StatusMisdirectedRequest
				if want != 0 && w.Code != want {
					t.Errorf("got %d, want %d: %s", w.Code, want, w.Body)
				}
				if want == 0 && refused {
					t.Errorf("refused with %d: %s", w.Code, w.Body)
				}
				if strings.Contains(w.Body.String(), token) || strings.Contains(w.Header().Get("Set-Cookie"), "skf") {
					t.Error("the answer gives the token away")
				}
				if w.Code == http.StatusMisdirectedRequest && w.Body.Len() > 0 {
					t.Errorf("a misdirected request got a body: %s", w.Body)
				}
				if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("headers: %v", w.Header())
				}
			})
		}
	}
}

// foreignPage has no identity where one is needed, and may change nothing.
func foreignPage(method string, public bool) int {
	if !public {
		return http.StatusUnauthorized
	}
	return unless(method == http.MethodGet || method == http.MethodHead, http.StatusForbidden)
}

func unless(ok bool, code int) int {
	if ok {
		return 0
	}
	return code
}

// TestStrangersLearnNothing: without a token, a path that exists and one that
// does not answer alike.
func TestStrangersLearnNothing(t *testing.T) {
	f := newFixture(t)
	f.put(t, "r1", "SUCCEEDED")
	const runs = "/apis/skiff.dev/v1alpha1/namespaces/default/runs/"
	for _, path := range []string{runs + "r1", runs + "no-such", "/no/such/path", runs + "r1/document"} {
		w := f.do(http.MethodGet, path, nil, nil)
		if w.Code != http.StatusUnauthorized || strings.Contains(w.Body.String(), "r1") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", path)
		}
	}
}

// withTimeout bounds a request that would stream for ever where a test fails.
func withTimeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
