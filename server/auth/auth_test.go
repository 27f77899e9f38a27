package auth_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skiff-ml/skiff/server/auth"
)

func TestAdminToken(t *testing.T) {
	dir := t.TempDir()
	if _, err := auth.ReadAdminToken(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want a missing file", err)
	}
	// Several daemons that start at once agree on one token.
	tokens := make([]string, 16)
	var wait sync.WaitGroup
	for i := range tokens {
		wait.Go(func() {
			token, err := auth.EnsureAdminToken(dir)
			if err != nil {
				t.Error(err)
			}
			tokens[i] = token
		})
	}
	wait.Wait()
	for _, token := range tokens {
		if token != tokens[0] || len(token) < 40 || !strings.HasPrefix(token, "skf_") {
			t.Errorf("token %q, first %q", token, tokens[0])
		}
	}
	info, err := os.Stat(filepath.Join(dir, auth.TokenFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestUnusableTokenFiles(t *testing.T) {
	for _, tc := range []struct {
		name, content string
		mode          fs.FileMode
		want          string
	}{
		{"readable by the group", "skf_abc\n", 0o640, "only its owner"},
		{"readable by all", "skf_abc\n", 0o604, "only its owner"},
		{"blank", "\n", 0o600, "no token"},
		{"too long", strings.Repeat("x", 1000), 0o600, "no token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, auth.TokenFile)
			if err := os.WriteFile(path, []byte(tc.content), tc.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := auth.EnsureAdminToken(dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestSocketPeer: the daemon's own user needs no token on its socket, but a
// token that is sent and wrong is refused even there.
func TestSocketPeer(t *testing.T) {
	authn := auth.NewAuthenticator("skf_right", nil)
	var got auth.Identity
	var gotErr error
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, gotErr = authn.Authenticate(r)
	}))
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Listener.Close()
	server.Listener = listener
	server.Config.ConnContext = authn.ConnContext
	server.Start()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	for _, tc := range []struct {
		name, header string
		want         auth.Identity
		refused      bool
	}{
		{"no token", "", auth.Identity{User: "admin", Via: "socket"}, false},
		{"right token", "Bearer skf_right", auth.Identity{User: "admin", Via: "token"}, false},
		{"right token, other case", "bearer skf_right", auth.Identity{User: "admin", Via: "token"}, false},
		{"wrong token", "Bearer skf_wrong", auth.Identity{}, true},
		{"other scheme", "Basic skf_right", auth.Identity{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, "http://localhost/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.header != "" {
				req.Header.Set("Authorization", tc.header)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got != tc.want || errors.Is(gotErr, auth.ErrUnauthenticated) != tc.refused {
				t.Errorf("got %+v, %v", got, gotErr)
			}
		})
	}
}

func TestAuthorizer(t *testing.T) {
	var authorizer auth.Authorizer = auth.AdminOnly{}
	if ok, _ := authorizer.Allowed(auth.Attributes{User: auth.AdminUser, Verb: "delete", Resource: "runs"}); !ok {
		t.Error("the administrator is refused")
	}
	for _, user := range []string{"", "Admin", "admin ", "somebody"} {
		if ok, reason := authorizer.Allowed(auth.Attributes{User: user, Verb: "get"}); ok || reason == "" {
			t.Errorf("%q is allowed", user)
		}
	}
}
