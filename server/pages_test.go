package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/ui"
)

// TestPages: whoever comes gets the pages, with what a browser must know of them;
// what they show has the rules of any client.
func TestPages(t *testing.T) {
	f := newFixture(t)
	files, err := ui.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		path := strings.TrimSuffix(file.Path, "{$}")
		w := f.do(http.MethodGet, path, nil, nil)
		if w.Code != http.StatusOK || w.Body.String() != string(file.Content) {
			t.Errorf("%s: %d, %d bytes, want %d", path, w.Code, w.Body.Len(), len(file.Content))
		}
		for name, want := range map[string]string{
			"Content-Type": file.Type, "Content-Security-Policy": ui.Policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if w := f.do(http.MethodPost, path, nil, bearer(token)); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	// Beside the pages there is nothing, and a stranger does not learn even that.
	if w := f.do(http.MethodGet, "/ui/no-such.js", nil, nil); w.Code != http.StatusUnauthorized {
		t.Errorf("a path without a page: %d", w.Code)
	}
	if w := f.do(http.MethodGet, "/ui/no-such.js", nil, bearer(token)); w.Code != http.StatusNotFound {
		t.Errorf("a path without a page: %d", w.Code)
	}
}
